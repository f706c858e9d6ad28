"""The hot operations, written to be read: plain PyTorch, one definition each.

Every faster implementation in this folder is tested against these. Shapes: B batch, T query positions, S key positions,
H heads, K key-value heads, C head width, D model width, F feed-forward width, V vocabulary, N rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension; statistics in float32 (Zhang & Sennrich 2019).

    `x` (..., D), `weight` (D,) of any floating dtype; the result has x's shape and dtype.
    """
    x32 = x.float()
    x32 = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)
    return (x32 * weight.float()).to(x.dtype)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, added: Tensor | None = None
) -> Tensor:
    """(s - mean(s)) / sqrt(var(s) + eps) · weight + bias over the last dimension, of s = x + added; statistics in
    float32 (Ba, Kiros & Hinton 2016, equation 4).

    `x`, `added` (..., D) of one dtype; `weight`, `bias` (D,) of any floating dtype; the result has x's shape and dtype.
    """
    s = x.float() if added is None else x.float() + added.float()
    centred = s - s.mean(-1, keepdim=True)
    y = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
    return (y if bias is None else y + bias.float()).to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the channel pairs (c, c + C/2) by their position's angles (Su et al. 2021, equation 34; the half-split
    pairing of the published Llama weights).

    `x` (B, T, H, C); `cos`, `sin` (B or 1, T, C/2) float32; the result has x's shape and dtype.
    """
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, both (..., F) (Shazeer 2020, equation 6)."""
    return F.silu(gate) * up


def dropout(x: Tensor, p: float) -> Tensor:
    """Each entry is 0 with probability `p`, else x / (1 - p) (Srivastava et al. 2014, section 10)."""
    return F.dropout(x, p)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, window: int | None = None,
    scale: float | None = None, softcap: float | None = None, dropout: float = 0.0,
) -> Tensor:
    """softmax(QKᵀ·scale + mask)·V for each head (Vaswani et al. 2017, equation 1).

    `q` (B, T, H, C); `k`, `v` (B, S, K, C), each key-value head serving H/K query heads in turn. `causal`: the last
    query stands at the last key, and none sees a key after it. `mask`, broadcast to (B, H, T, S), is added to the scores when
    floating, and says where to look when boolean; it goes on top of `causal`. `window`, for causal attention: a query
    sees at most so many keys, the one at its own place included (Beltagy, Peters & Cohan 2020). `scale` is 1/sqrt(C)
    unless given. `softcap`: scores s become softcap · tanh(s / softcap) before the masks (Riviere et al. 2024).
    `dropout` is the probability of dropping an attention weight. A query that sees no key gets zeros. Returns
    (B, T, H, C).
    """
    weights = attention_weights(q, k, mask=mask, causal=causal, window=window, scale=scale, softcap=softcap)
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)  # (B, S, H, C)
    return torch.einsum("bhts,bshc->bthc", F.dropout(weights, dropout).to(v.dtype), v)


def attention_weights(
    q: Tensor, k: Tensor, *, mask: Tensor | None = None, causal: bool = False, window: int | None = None,
    scale: float | None = None, softcap: float | None = None,
) -> Tensor:
    """The softmax of `attention`, (B, H, T, S) float32: how much of each key's value a query takes."""
    T, H, C = q.shape[1:]
    S, K = k.shape[1:3]
    k = k.repeat_interleave(H // K, dim=2)  # (B, S, H, C)
    scores = torch.einsum("bthc,bshc->bhts", q, k).float() * (C**-0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        hidden = ~sees(T, S, window, q.device)
        scores = scores.masked_fill(hidden, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    blind = scores.isneginf().all(dim=-1, keepdim=True)
    return scores.softmax(dim=-1).masked_fill(blind, 0)


def paged_attention(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, rows: Tensor, positions: Tensor, *,
    scale: float | None = None, window: int | None = None, softcap: float | None = None, key_bias: Tensor | None = None,
) -> Tensor:
    """Attention of single queries to texts whose keys and values lie in blocks (Kwon et al. 2023, equation 4).

    `q` (N, H, C); `keys`, `values` (blocks, size, K, C) of q's dtype. Query n is of the text `rows[n]`, at `positions[n]`
    (both (N,) int32), and sees that text from its beginning to itself, or the last `window` positions of that. Position
    p of text r lies in block tables[r, p // size], at place p % size; `tables` (R, M) int32. `key_bias` (H, P) float32:
    what is added to the scores of a key at position p. `scale`, `softcap`: as for `attention`. A query's result depends
    on nothing but itself and its own text, to the bit. Returns (N, H, C).
    """
    out = torch.empty_like(q)
    size, K, C = keys.shape[1:]
    for n in range(len(q)):
        seen = int(positions[n]) + 1
        blocks = tables[int(rows[n]), : -(-seen // size)].long()
        k, v = (held[blocks].reshape(1, -1, K, C)[:, :seen] for held in (keys, values))  # (1, S, K, C)
        bias = None if key_bias is None else key_bias[None, :, None, :seen]  # (1, H, 1, S)
        out[n] = attention(
            q[None, n : n + 1], k, v, mask=bias, causal=True, window=window, scale=scale, softcap=softcap
        )[0, 0]
    return out


def sees(T: int, S: int, window: int | None, device) -> Tensor:
    """(T, S) bool: where causal attention looks. The last query stands at the last key."""
    near = torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
    return near if window is None else near.triu(S - T - window + 1)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """x · (weight · scale)ᵀ + bias with x in 8 bits too, then GELU if asked (Jacob et al. 2018, sections 2.1-2.3; each
    row of x by itself, each output's weights by themselves: the vector-wise scheme of Dettmers et al. 2022, section
    2.1).

    `x` (..., K); `weight` (F, K) int8, `scale` (F,) float32, as `quantize_weight` gives them; `bias` (F,). A row of x
    is cut into 255 steps from its least to its greatest number, 0 among them, and 0 stays 0. (..., F), of x's dtype;
    without gradients.
    """
    bytes, zero, step = as_bytes(x)
    y = ((bytes - zero).double() @ weight.double().T).float() * step * scale  # the sum of the products is exact
    y = y if bias is None else y + bias.float()
    return (F.gelu(y) if gelu else y).to(x.dtype)


def as_bytes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x` (..., K) as whole numbers from 0 to 255, float32, and for each row the one that stands for 0 and what a step
    is worth, both (..., 1): x ≈ (bytes - zero) · step."""
    x = x.float()
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    inverse = torch.where(high > low, 255 / (high - low), 0)
    zero = (-low * inverse).round()
    return ((x * inverse).round() + zero).clamp(0, 255), zero, (high - low) / 255


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (F, K) as int8 and one scale a row, (F,) float32: weight ≈ int8 · scale."""
    weight = weight.float()
    scale = weight.abs().amax(1) / 127
    return (weight / scale.clamp(min=1e-30)[:, None]).round().to(torch.int8), scale


GROUP = 32  # inputs that share a scale


def linear_quantized(
    x: Tensor, whole: Tensor, scale: Tensor, minimum: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """x · Wᵀ + bias where W has few bits, in groups of 32 inputs, and x has 8 on the way (the schemes Q8_0 and Q4_1 of
    llama.cpp).

    `x` (..., K); `whole` (F, K), `scale` and `minimum` (F, G), as `quantize_groups` gives them: W ≈ whole · scale +
    minimum in each of the G groups; `bias` (F,). A group of a row of x is cut into 127 steps to either side of 0, up to
    its largest number. A row's result depends on nothing but that row, to the bit. (..., F), of x's dtype; without
    gradients.
    """
    groups = in_groups(x.float(), 0)  # (..., G, 32)
    most = groups.abs().amax(-1, keepdim=True)
    inverse, step = torch.where(most > 1e-30, 127 / most, 0), (most / 127).double()
    groups, whole = (groups * inverse).round().double(), in_groups(whole.double(), 0)
    y = torch.zeros(*x.shape[:-1], len(whole), dtype=torch.float64, device=x.device)
    for g in range(scale.shape[1]):
        y += groups[..., g, :] @ whole[:, g].T * step[..., g, :] * scale[:, g].double()
        if minimum is not None:
            y += groups[..., g, :].sum(-1, keepdim=True) * step[..., g, :] * minimum[:, g].double()
    return (y if bias is None else y + bias).to(x.dtype)


def quantize_groups(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A matrix (F, K) in groups of 32 along K (the last may be smaller): whole numbers (F, K), and for each group a scale
    and, with 4 bits, a minimum, (F, G) float16. 8 bits: int8, weight ≈ whole · scale. 4 bits: uint8 from 0 to 15, weight
    ≈ whole · scale + minimum."""
    groups, most = in_groups(weight.float(), None), torch.finfo(torch.float16).max
    low, high = groups.amin(-1), groups.amax(-1)
    minimum = low.clamp(-most, most).half() if bits == 4 else None
    reach = (high - low) / 15 if bits == 4 else torch.maximum(high, -low) / 127
    scale = reach.clamp(max=most).half()
    inverse = torch.where(scale > 0, 1 / scale.float(), 0)[..., None]
    if bits == 4:
        whole = ((groups - minimum.float()[..., None]) * inverse).round().clamp(0, 15).to(torch.uint8)
    else:
        whole = (groups * inverse).round().clamp(-127, 127).to(torch.int8)
    return whole.flatten(1)[:, : weight.shape[1]], scale, minimum


def dequantize_groups(whole: Tensor, scale: Tensor, minimum: Tensor | None) -> Tensor:
    """The matrix (F, K) float32 that `quantize_groups` made these from, nearly."""
    groups = in_groups(whole.float(), None) * scale.float()[..., None]
    groups = groups if minimum is None else groups + minimum.float()[..., None]
    return groups.flatten(1)[:, : whole.shape[1]]


def in_groups(x: Tensor, fill: float | None) -> Tensor:
    """(..., K) as (..., G, 32). What is missing in the last group is `fill`, or its last number again."""
    missing = -x.shape[-1] % GROUP
    if missing:
        more = x[..., -1:].expand(*x.shape[:-1], missing)
        x = torch.cat((x, more if fill is None else torch.full_like(more, fill)), dim=-1)
    return x.unflatten(-1, (-1, GROUP))


def linear_steady(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, whose rows depend on nothing but themselves, to the bit: as if each were computed alone.

    `x` (..., K), `weight` (F, K) of x's dtype, `bias` (F,); (..., F), summed in float32; without gradients.
    """
    rows = [F.linear(row.float(), weight.float()) for row in x.reshape(-1, x.shape[-1])]
    y = torch.stack(rows) if rows else x.new_empty(0, len(weight))
    return (y if bias is None else y + bias.float()).to(x.dtype).view(*x.shape[:-1], len(weight))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Tensor:
    """The sum over rows of -log softmax(hidden · weightᵀ)[target], in nats, float32, as a scalar.

    `hidden` (N, D), `weight` (V, D), `targets` (N,) int64; rows whose target is `ignore_index` count nothing. A sum,
    not a mean, so that the caller can divide by the number of valid tokens over all micro-batches and ranks.
    `label_smoothing` ε: the wanted distribution is 1 - ε on the target and ε spread evenly over the vocabulary (Szegedy
    et al. 2016, section 7).
    """
    logits = hidden @ weight.to(hidden.dtype).T  # (N, V)
    return F.cross_entropy(
        logits.float(), targets, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
    )


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(hidden · weightᵀ)[target] of each row, in nats, (N,) float32, without gradients, for evaluation.

    `hidden` (N, D), `weight` (V, D), `targets` (N,) int64; a target of -100 gives 0.
    """
    logits = hidden @ weight.to(hidden.dtype).T  # (N, V)
    return F.cross_entropy(logits.float(), targets, reduction="none")
