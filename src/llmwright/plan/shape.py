"""The shape of a transformer, as far as its costs depend on it.

`model.config.ModelConfig` says how to build a model; a `Shape` only says what it costs, so it can also describe
published models that this project does not build (Chinchilla with Transformer-XL's positions).
Nothing in here imports torch: a plan of a preset is arithmetic and answers at once.

Letters: D model width, L layers, H heads, K key-value heads, C head width, F feed-forward width, V vocabulary,
T time (tokens).
"""

from dataclasses import dataclass, replace

from ..errors import RequestError
from ..model.config import ALiBi, Learned, ModelConfig, Relative

LARGEST = 10**9  # of any one dimension: beyond it a number was mistyped


BLOCK_NORMS = {"pre": 2, "post": 2, "sandwich": 4, "parallel": 1, "parallel_two_norms": 2}


@dataclass(frozen=True)
class Shape:
    """All that decides parameters, memory and FLOPs.

    `kind`, `residual`, `windows`, `n_encoder_layers`: as in `ModelConfig`. `positions`: "learned" (a table of
    `position_rows`, by default `context`, rows), "transformer-xl" (one D×H·C matrix and two bias vectors of H·C a
    layer), "buckets" (`n_buckets` numbers a head), "alibi", or "none" for schemes that add neither parameters nor
    anything to the scores (rotary, sinusoidal). `n_experts`, `active_experts`: feed-forwards a block has and a token
    passes through; 1 and 1 for a dense model. `tokens`: what the published model was trained on, if known.
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
    kind: str = "decoder"
    n_encoder_layers: int = 0
    residual: str = "pre"
    windows: tuple[int | None, ...] = ()
    gated: bool = True
    activation: str = "silu"
    positions: str = "none"
    position_rows: int | None = None
    n_buckets: int = 0
    norm: str = "rms"
    norm_bias: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    ff_bias: bool = False
    softcap: bool = False  # on the scores
    embedding_norm: bool = False
    token_types: int = 0
    pooler: bool = False
    head_transform: bool = False
    head_bias: bool = False
    tie_embeddings: bool = False
    n_experts: int = 1
    active_experts: int = 1
    dropout: bool = False  # on what a block adds to the residual stream: its masks are kept for the backward pass
    attention_dropout: bool = False  # on the attention weights: then the full matrix is built
    ff_dropout: bool = False
    tokens: float | None = None

    def __post_init__(self):
        sizes = ["vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "context", "n_experts",
                 "active_experts"]
        for name in sizes + (["n_encoder_layers"] if self.kind == "encoder-decoder" else []):
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

    @property
    def block_norms(self) -> int:
        """Norms a block, without the one before cross-attention."""
        return BLOCK_NORMS[self.residual]

    @property
    def stacks(self) -> int:
        return 2 if self.kind == "encoder-decoder" else 1

    @property
    def cross_layers(self) -> int:
        """Layers that attend to an encoder."""
        return self.n_layers if self.kind == "encoder-decoder" else 0


def shape_of(config: ModelConfig | Shape) -> Shape:
    """The shape of a model configuration (a Shape comes back as it is)."""
    if isinstance(config, Shape):
        return config
    a, f, e, head = config.attention, config.feed_forward, config.experts, config.head
    schemes = {Learned: "learned", ALiBi: "alibi", Relative: "buckets"}
    return Shape(
        name=config.family, vocab_size=config.vocab_size, d_model=config.d_model, n_layers=config.n_layers,
        n_heads=a.n_heads, n_kv_heads=a.n_kv_heads, head_dim=a.head_dim, d_ff=f.d_ff, context=config.context,
        kind=config.kind, n_encoder_layers=config.n_encoder_layers, residual=config.residual, windows=config.windows,
        gated=f.gated, activation=f.activation, positions=schemes.get(type(config.positions), "none"),
        position_rows=getattr(config.positions, "n_positions", None),
        n_buckets=getattr(config.positions, "n_buckets", 0), norm=config.norm.kind,
        norm_bias=config.norm.kind == "layer" and config.norm.bias, qk_norm=a.qk_norm, qkv_bias=a.qkv_bias,
        out_bias=a.out_bias, ff_bias=f.bias, softcap=a.softcap is not None, embedding_norm=config.embedding_norm,
        token_types=config.token_types, pooler=config.pooler, head_transform=bool(head and head.transform),
        head_bias=bool(head and head.bias), tie_embeddings=config.tie_embeddings or head is None,
        n_experts=e.n_experts if e else 1, active_experts=e.n_active if e else 1,
        dropout=config.residual_dropout > 0, attention_dropout=a.dropout > 0, ff_dropout=f.dropout > 0,
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
