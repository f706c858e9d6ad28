"""The shape of a transformer, as far as its costs depend on it.

`model.config.ModelConfig` says how to build a model; a `Shape` only says what it costs, so it can also describe
published models that this project does not build (a mixture of experts, a parallel block, relative positions).
Nothing in here imports torch: a plan of a preset is arithmetic and answers at once.

Letters: D model width, L layers, H heads, K key-value heads, C head width, F feed-forward width, V vocabulary,
T time (tokens).
"""

from dataclasses import dataclass, replace

from ..errors import RequestError
from ..model.config import Learned, ModelConfig

LARGEST = 10**9  # of any one dimension: beyond it a number was mistyped


@dataclass(frozen=True)
class Shape:
    """All that decides parameters, memory and FLOPs.

    `positions`: "learned" (a table of `context` rows), "relative" (Transformer-XL: one D×H·C matrix and two bias
    vectors of H·C a layer), or "none" for schemes without parameters (rotary, ALiBi).
    `block_norms`: norms a block (2, or 1 where attention and feed-forward share one).
    `n_experts`, `active_experts`: feed-forwards a block has and a token passes through; 1 and 1 for a dense model.
    `tokens`: what the published model was trained on, if known.
    """

    name: str
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    context: int
    gated: bool = True
    positions: str = "none"
    norm: str = "rms"
    norm_bias: bool = False
    block_norms: int = 2
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    ff_bias: bool = False
    tie_embeddings: bool = False
    n_experts: int = 1
    active_experts: int = 1
    dropout: bool = False  # on what a block adds to the residual stream: its masks are kept for the backward pass
    attention_dropout: bool = False  # on the attention weights: then the full matrix is built
    tokens: float | None = None

    def __post_init__(self):
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "context",
                     "n_experts", "active_experts"):
            value = getattr(self, name)
            if not 1 <= value <= LARGEST:
                raise RequestError(f"{self.name}: {name} is {value}; it must be from 1 to {LARGEST:,}")
        if self.active_experts > self.n_experts:
            raise RequestError(f"{self.name}: active_experts {self.active_experts} is more than the {self.n_experts} "
                               "experts there are")

    @property
    def q_width(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.n_kv_heads * self.head_dim


def shape_of(config: ModelConfig | Shape) -> Shape:
    """The shape of a model configuration (a Shape comes back as it is)."""
    if isinstance(config, Shape):
        return config
    a, f = config.attention, config.feed_forward
    return Shape(
        name=config.family, vocab_size=config.vocab_size, d_model=config.d_model, n_layers=config.n_layers,
        n_heads=a.n_heads, n_kv_heads=a.n_kv_heads, head_dim=a.head_dim, d_ff=f.d_ff, context=config.context,
        gated=f.gated, positions="learned" if isinstance(config.positions, Learned) else "none",
        norm=config.norm.kind, norm_bias=config.norm.kind == "layer" and config.norm.bias, qk_norm=a.qk_norm,
        qkv_bias=a.qkv_bias, out_bias=a.out_bias, ff_bias=f.bias, tie_embeddings=config.tie_embeddings,
        dropout=config.residual_dropout > 0, attention_dropout=a.dropout > 0,
    )


def typical(params: float, context: int = 2048) -> Shape:
    """A Llama-like shape of about `params` parameters, for a plan that knows only their number.

    Width 100 times the depth (between GPT-2's 64 and GPT-3's 128; Kaplan et al. 2020, section 3.1, found that the
    loss hardly depends on it), heads of 64 or 128, a feed-forward of 8/3 D, gated; vocabulary 32,000, tied below 1B.
    Depth and feed-forward are then corrected so that the count lands on `params`, within a few tenths of a percent.
    """
    if not 1e5 <= params <= 1e15:
        raise RequestError(f"{params:,.0f} parameters is beyond what a plan can assume a shape for (100,000 to 1e15)")
    from .parameters import parameters

    vocab = 32_000 if params >= 2e7 else 4096 if params >= 1e6 else 256

    def shape(d_model: int, n_layers: int) -> Shape:
        head = 128 if d_model >= 2048 else 64
        heads = max(1, d_model // head)
        d_ff = -(-8 * d_model // 3 // 64) * 64
        return Shape("typical", vocab, d_model, n_layers, heads, heads, head, d_ff, context,
                     tie_embeddings=params < 1e9)

    best = None
    depth = (params / (12 * 100**2)) ** (1 / 3)
    for scale in (0.5, 0.7, 0.85, 1.0, 1.2, 1.4):
        d_model = max(64, round(100 * depth * scale / 64) * 64)
        if d_model >= 2048:
            d_model = round(d_model / 128) * 128
        one, two = (parameters(shape(d_model, n)).total for n in (1, 2))
        n_layers = max(1, round((params - one) / (two - one)) + 1)
        candidate = shape(d_model, n_layers)
        # 4 % off in size weighs as much as a proportion twice too wide or narrow
        miss = abs(parameters(candidate).total / params - 1) + 0.04 * abs(scale - 1)
        if best is None or miss < best[0]:
            best = (miss, candidate)
    near = best[1]
    step = 3 * near.d_model * near.n_layers * 8  # parameters of 8 more feed-forward channels in each layer
    d_ff = near.d_ff + 8 * round((params - parameters(near).total) / step)
    return replace(near, d_ff=max(8, d_ff))
