"""The last matrix product and the cross-entropy together, a chunk of rows at a time.

The logits of a training step are its largest tensor (16 × 256 tokens at a vocabulary of 8192: 128 MB in float32, with
copies). Here a chunk of them exists at a time. As the loss is a scalar, its gradient is known, up to a factor, as soon
as the logits are: the forward turns them into softmax - onehot in place and multiplies on at once; the backward only
scales (the idea of Liger Kernel's fused linear cross entropy, Hsu et al. 2024, section 3.2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from . import native

CHUNK_BYTES = 16 << 20  # of logits; measured on 2 cores of Zen 4 with 32 MB of L3


def _chunks(hidden: Tensor, vocab_size: int) -> int:
    """Rows in a chunk: a multiple of 64, at least 64, about CHUNK_BYTES of logits."""
    return max(64, CHUNK_BYTES // (vocab_size * hidden.element_size()) // 64 * 64)


def rows(logits: Tensor, targets: Tensor, ignore_index: int, grad: bool, use_native: bool) -> Tensor:
    """The loss of each row (n,), float32; with `grad` the logits become softmax - onehot, zero where ignored."""
    if use_native:
        n, V = logits.shape
        loss = torch.empty(n, dtype=torch.float32)
        native.call("cross_entropy", logits.dtype, logits, n, V, logits.stride(0), targets, ignore_index, loss, grad,
                    torch.get_num_threads())
        return loss
    kept = targets != ignore_index
    index = targets.where(kept, 0)[:, None]
    logp = logits.float().log_softmax(-1)
    loss = -logp.gather(1, index)[:, 0] * kept
    if grad:
        logp.exp_().scatter_add_(1, index, -torch.ones_like(index, dtype=logp.dtype))
        logits.copy_(logp.mul_(kept[:, None]))
    return loss


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, ignore_index, use_native):
        N, V = hidden.shape[0], weight.shape[0]
        w = weight.to(hidden.dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        dh = torch.empty_like(hidden) if needs_hidden else None
        dw = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if needs_weight else None
        size = _chunks(hidden, V)
        logits = torch.empty(min(size, N), V, dtype=hidden.dtype, device=hidden.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for i in range(0, N, size):
            h, target = hidden[i : i + size], targets[i : i + size]
            chunk = torch.mm(h, w.T, out=logits[: len(h)])  # (n, V)
            total += rows(chunk, target, ignore_index, needs_hidden or needs_weight, use_native).sum()
            if needs_hidden:
                torch.mm(chunk, w, out=dh[i : i + size])
            if needs_weight and hidden.dtype == torch.float32:
                dw.addmm_(chunk.T, h)
            elif needs_weight:
                dw += chunk.T @ h
        ctx.save_for_backward(dh, dw)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        dh, dw = ctx.saved_tensors
        return (
            None if dh is None else dh * grad.to(dh.dtype),
            None if dw is None else (dw * grad).to(ctx.dtype),
            None, None, None,
        )


def linear_cross_entropy(hidden, weight, targets, *, ignore_index=-100, label_smoothing=0.0, use_native: bool) -> Tensor:
    """As `reference.linear_cross_entropy`."""
    loss = _LinearCrossEntropy.apply(hidden, weight, targets, ignore_index, use_native)
    return loss + label_smoothing * _smoothing(hidden, weight, targets, ignore_index) if label_smoothing else loss


def _smoothing(hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """What a smoothed loss adds for each ε. With z the logits and t the target, (1-ε)·(lse z - z_t) + ε·(lse z - mean z)
    is lse z - z_t + ε·(z_t - mean z), and the bracket is hidden · (weight_t - mean weight): no logits are needed."""
    kept = (targets != ignore_index).nonzero()[:, 0]
    other = F.embedding(targets[kept], weight) - weight.mean(0)  # (n, D)
    return (hidden[kept].float() * other.float()).sum()


@torch.no_grad()
def token_losses(hidden, weight, targets, *, use_native: bool) -> Tensor:
    """As `reference.token_losses`."""
    w = weight.to(hidden.dtype)
    size = _chunks(hidden, weight.shape[0])
    losses = [
        rows(h @ w.T, target, -100, False, use_native) for h, target in zip(hidden.split(size), targets.split(size))
    ]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)
