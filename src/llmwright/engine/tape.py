"""The blocks of a decoder, written down as one list of native operations (`kernels.tape`).

The blocks say what is computed; this says the same as a list, by walking through them once. It is for writing text on a
CPU: no gradients, keys and values in blocks (`model.paged`). What it gives are the numbers that the blocks give.
"""

import threading

import torch
from torch import Tensor, nn

from .. import kernels
from ..errors import RequestError
from ..kernels.tape import ACTIVATIONS, Step, Tape, room
from ..model.attention import Attention
from ..model.decoder import Decoder
from ..model.norms import LayerNorm
from ..model.paged import PagedCache
from ..model.positions import Rotation
from .linear import FEW, FloatLinear, QuantizedLinear, SteadyLinear


def record(model: Decoder) -> "Recording | None":
    """The tape of a model whose matrices `weights.hold` has changed; None where there is none for its kind."""
    config = model.config
    native = kernels.using(model.device)["paged_attention"] == "native"
    layouts = ("pre", "sandwich", "parallel", "parallel_two_norms")
    if not native or config.experts or config.residual not in layouts or model.dtype not in kernels.native.DTYPES:
        return None
    layers = [m for m in model.blocks.modules() if isinstance(m, (QuantizedLinear, SteadyLinear, FloatLinear))]
    if any(isinstance(m, QuantizedLinear) and m.weight.panels is None for m in layers):
        return None
    return Recording(model, FEW if any(isinstance(m, FloatLinear) for m in layers) else None)


class Recording:
    """`most`: for so many rows at a time; None: for any number."""

    def __init__(self, model: Decoder, most: int | None):
        self.config, self.blocks, self.windows = model.config, model.blocks, model.windows
        self.schemes = [model.positions, model.local_positions or model.positions]
        self.local = [bool(w) and model.local_positions is not None for w in model.windows]
        self.context, self.dtype, self.most = model.context, model.dtype, most
        self.of_thread = threading.local()  # several engines may have the same model

    def takes(self, x: Tensor) -> bool:
        return not torch.is_grad_enabled() and x.dtype == self.dtype and (not self.most or x.shape[:2].numel() <= self.most)

    def run(self, x: Tensor, positions: Tensor, cache: PagedCache) -> Tensor:
        """`x` (B, T, D) as it enters the first block → as it leaves the last."""
        N = x.shape[0] * x.shape[1]
        written = getattr(self.of_thread, "written", None)
        if written is None or N > written.rows:
            with torch.inference_mode(False):  # others may run it without that mode
                written = self.of_thread.written = Written(self, max(FEW, 1 << (N - 1).bit_length()))
        p, step = cache.placement, Step()
        states = written.x[:N]
        states.copy_(x.view(N, -1))
        step.N, step.blocks, step.size = N, p.tables.stride(0), cache.keys.shape[2]
        step.tables, step.rows, step.positions = p.tables.data_ptr(), p.rows.data_ptr(), p.positions.data_ptr()
        step.slots, step.keys, step.values = p.slots.data_ptr(), cache.keys.data_ptr(), cache.values.data_ptr()
        step.layer, step.threads = cache.keys.shape[1] * cache.keys.shape[2], torch.get_num_threads()
        angles = []
        for kind in range(1 + any(self.local)):
            geometry = self.schemes[kind].geometry(positions)
            if isinstance(geometry, Rotation):
                held = [t.float().expand(*x.shape[:2], -1).reshape(N, -1).contiguous() for t in (geometry.cos, geometry.sin)]
                step.cos[kind], step.sin[kind] = held[0].data_ptr(), held[1].data_ptr()
                angles += held
        written.tape.run(step)
        return states.view(x.shape).clone()

    def __deepcopy__(self, *_):
        raise RequestError("a model whose matrices are held for writing cannot be copied: load it again")

    __reduce__ = __deepcopy__


class Written:
    """The tape for up to `rows` rows, with the buffers between its operations."""

    def __init__(self, recording: Recording, rows: int):
        self.recording, self.rows, self.tape = recording, rows, Tape(recording.dtype)
        self.config = config = recording.config
        a, D, F = config.attention, config.d_model, config.feed_forward.d_ff

        def buffer(width: int) -> Tensor:
            return torch.empty(rows, width, dtype=recording.dtype)

        self.x, self.normed, self.other = buffer(D), buffer(D), buffer(D)
        self.qkv, self.heads = buffer((a.n_heads + 2 * a.n_kv_heads) * a.head_dim), buffer(a.n_heads * a.head_dim)
        self.wide, self.inner = buffer(2 * F if config.feed_forward.gated else F), buffer(F)
        self.room = room(rows, max(D, F, a.n_heads * a.head_dim))
        write = getattr(self, f"_{config.residual}")
        for layer, block in enumerate(recording.blocks):
            write(layer, block)

    # the layouts of model.block

    def _pre(self, layer: int, block: nn.Module) -> None:
        self._norm(block.attention_norm, self.x, self.normed)
        self._attention(layer, block.attention, self.normed, self.x, add=True)
        self._norm(block.feed_forward_norm, self.x, self.normed)
        self._feed_forward(block.feed_forward, self.normed, self.x, add=True)

    def _sandwich(self, layer: int, block: nn.Module) -> None:
        self._norm(block.attention_norm, self.x, self.normed)
        self._attention(layer, block.attention, self.normed, self.other, add=False)
        self._norm(block.attention_post_norm, self.other, self.x, add=True)
        self._norm(block.feed_forward_norm, self.x, self.normed)
        self._feed_forward(block.feed_forward, self.normed, self.other, add=False)
        self._norm(block.feed_forward_post_norm, self.other, self.x, add=True)

    def _parallel(self, layer: int, block: nn.Module) -> None:
        self._norm(block.attention_norm, self.x, self.normed)
        self._attention(layer, block.attention, self.normed, self.x, add=True)
        self._feed_forward(block.feed_forward, self.normed, self.x, add=True)

    def _parallel_two_norms(self, layer: int, block: nn.Module) -> None:
        self._norm(block.attention_norm, self.x, self.normed)
        self._norm(block.feed_forward_norm, self.x, self.other)
        self._attention(layer, block.attention, self.normed, self.x, add=True)
        self._feed_forward(block.feed_forward, self.other, self.x, add=True)

    # their parts

    def _attention(self, layer: int, module: Attention, x: Tensor, y: Tensor, add: bool) -> None:
        spec, stride, kind = module.spec, self.qkv.shape[1], int(self.recording.local[layer])
        H, K, C = spec.n_heads, spec.n_kv_heads, spec.head_dim
        self._linear(module.joined.layer, x, self.qkv)
        for norm, heads, at in ((module.query_norm, H, 0), (module.key_norm, K, H * C)):
            if not isinstance(norm, nn.Identity):
                self._norm(norm, self.qkv[:, at:], self.qkv[:, at:], heads=heads)
        scheme = self.recording.schemes[kind]
        self.tape.add("keep", self.qkv, stride, H, K, C, getattr(scheme, "dim", 0) // 2, kind, layer)
        bias = scheme.key_bias(self.recording.context)
        bias = None if bias is None else bias.float().contiguous()
        scale = C**-0.5 if spec.scale is None else spec.scale
        self.tape.add(
            "attend", self.qkv, stride, H, K, C, layer, self.recording.windows[layer] or 0, scale, spec.softcap or 0.0, bias,
            0 if bias is None else bias.shape[1], self.heads,
        )
        self._linear(module.out, self.heads, y, add)

    def _feed_forward(self, module: nn.Module, x: Tensor, y: Tensor, add: bool) -> None:
        spec, F = self.config.feed_forward, self.config.feed_forward.d_ff
        self._linear(module.joined.layer if spec.gated else module.up, x, self.wide)
        up = self.wide[:, F:] if spec.gated else None
        self.tape.add("activate", self.wide, up, self.wide.shape[1], F, ACTIVATIONS[spec.activation], self.inner)
        self._linear(module.down, self.inner, y, add)

    def _norm(self, norm: nn.Module, x: Tensor, y: Tensor, add: bool = False, heads: int = 1) -> None:
        bias = getattr(norm, "bias", None)
        bias = None if bias is None else bias.detach().float().contiguous()
        weight = norm.weight.detach().float().contiguous()
        self.tape.add(
            "norm", x, x.stride(0), heads, len(weight), weight, bias, norm.eps, isinstance(norm, LayerNorm), y, y.stride(0),
            add,
        )

    def _linear(self, layer: nn.Module, x: Tensor, y: Tensor, add: bool = False) -> None:
        if isinstance(layer, QuantizedLinear):
            w = layer.weight
            self.tape.add("quantize", x, x.stride(0), x.shape[1], self.room)
            self.tape.add("linear_quantized", x.shape[1], w.panels, w.padded, w.shape[0], w.bits, y, add, self.room)
        else:
            bias = None if layer.bias is None else layer.bias.float().contiguous()
            self.tape.add("linear_steady", x, x.stride(0), x.shape[1], layer.weight, bias, len(layer.weight), y, add)
