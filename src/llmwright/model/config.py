"""What a transformer is made of, as data.

A `ModelConfig` composes parts (an attention, a position scheme, a feed-forward, a norm, a residual layout) instead of
carrying a long list of switches. Each part is a small frozen dataclass here and a small module beside this file;
`model/decoder.py` builds the modules once from the parts, so the forward pass has no switch in it. A family file
(`families/`) turns a published `config.json` into this composition and back.

Letters used for shapes everywhere: B batch, T time (tokens), D model width, H heads, K key-value heads, C head width,
V vocabulary, F feed-forward width.
"""

from dataclasses import dataclass, field

from ..errors import RequestError


@dataclass(frozen=True)
class Norm:
    """`kind` is "rms" (Zhang & Sennrich 2019) or "layer" (Ba, Kiros & Hinton 2016)."""

    kind: str = "rms"
    eps: float = 1e-6
    bias: bool = False  # layer norm only


@dataclass(frozen=True)
class Learned:
    """A learned vector added to the embedding of each position (GPT-2, BERT)."""

    n_positions: int


@dataclass(frozen=True)
class Rotary:
    """Rotation of query and key by an angle that grows with the position (Su et al. 2021, section 3.2)."""

    theta: float = 10_000.0


@dataclass(frozen=True)
class Attention:
    """Multi-head, grouped-query (Ainslie et al. 2023) or multi-query (Shazeer 2019) attention, by `n_kv_heads`."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3)
    dropout: float = 0.0  # on the attention weights


@dataclass(frozen=True)
class FeedForward:
    """`gated` multiplies by a gate: down(act(gate x) * up x) (Shazeer 2020); otherwise down(act(up x))."""

    d_ff: int
    activation: str = "silu"  # silu, gelu, gelu_tanh, relu
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """A whole decoder-only transformer.

    `context` is the longest sequence the model is made for. `residual_dropout` and `embedding_dropout` are
    probabilities. `init_std` is the standard deviation of new weights, by the family's paper; `init_residual_scale`
    multiplies it for the two matrices of a block that write to the residual stream (GPT-2, section 2.3: 1/sqrt(2L)).
    `special_tokens` carries the ids a checkpoint needs (bos, eos, pad).
    """

    family: str
    vocab_size: int
    d_model: int
    n_layers: int
    context: int
    attention: Attention
    feed_forward: FeedForward
    positions: Learned | Rotary
    norm: Norm = field(default_factory=Norm)
    tie_embeddings: bool = False
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    init_std: float = 0.02
    init_residual_scale: float = 1.0
    special_tokens: tuple[tuple[str, int], ...] = ()

    def __post_init__(self):
        a = self.attention
        for name, value in (
            ("vocab_size", self.vocab_size), ("d_model", self.d_model), ("n_layers", self.n_layers),
            ("context", self.context), ("n_heads", a.n_heads), ("n_kv_heads", a.n_kv_heads),
            ("head_dim", a.head_dim), ("d_ff", self.feed_forward.d_ff),
        ):
            most = 10_000 if name == "n_layers" else 10**9  # beyond, a number was mistyped
            if type(value) is not int or not 1 <= value <= most:
                raise RequestError(f"model.{name} is {value!r}; it must be a whole number from 1 to {most:,}")
        for name, value, most in (
            ("norm.eps", self.norm.eps, 1), ("init_std", self.init_std, 1e3),
            ("rope_theta", getattr(self.positions, "theta", 1.0), 1e15), ("attention dropout", a.dropout, 1),
            ("residual dropout", self.residual_dropout, 1), ("embedding dropout", self.embedding_dropout, 1),
        ):
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise RequestError(f"model: {name} is {value!r}; it must be a number from 0 to {most:g}")
        if a.n_heads % a.n_kv_heads:
            raise RequestError(
                f"model.n_heads {a.n_heads} is not a multiple of model.n_kv_heads {a.n_kv_heads}: "
                "every key-value head serves an equal group of query heads"
            )
        if isinstance(self.positions, Rotary) and a.head_dim % 2:
            raise RequestError(
                f"the head width {a.head_dim} is odd; rotary positions turn pairs of channels: make it even"
            )

    def special(self, name: str) -> int | None:
        """The id of the special token `name` (bos, eos, pad), or None."""
        return dict(self.special_tokens).get(name)
