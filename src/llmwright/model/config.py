"""What a transformer is made of, as data.

A `ModelConfig` composes parts (an attention, a position scheme, a feed-forward, a norm, a residual layout) instead of
carrying a long list of switches. Each part is a small frozen dataclass here and a small module beside this file; the
modules are built once from the parts, so the forward pass has no switch in it. A family file (`families/`) turns a
published `config.json` into this composition and back.

Letters used for shapes everywhere: B batch, T time (tokens), S positions that are looked at, D model width, H heads,
K key-value heads, C head width, V vocabulary, F feed-forward width, E experts.
"""

from dataclasses import dataclass, field

from ..errors import RequestError

KINDS = ("decoder", "encoder", "encoder-decoder")
RESIDUALS = ("pre", "post", "sandwich", "parallel", "parallel_two_norms")


@dataclass(frozen=True)
class Norm:
    """`kind` is "rms" (Zhang & Sennrich 2019) or "layer" (Ba, Kiros & Hinton 2016)."""

    kind: str = "rms"
    eps: float = 1e-6
    bias: bool = False  # layer norm only


@dataclass(frozen=True)
class Learned:
    """A learned vector added to the embedding of each position (GPT-2, BERT). The first position has row `offset` of
    the table (RoBERTa: 2)."""

    n_positions: int  # rows of the table
    offset: int = 0


@dataclass(frozen=True)
class Sinusoidal:
    """A fixed vector of sines and cosines added to the embedding of each position (Vaswani et al. 2017, section 3.5)."""


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies change so that a model reads further than it was trained (`model/rope_scaling.py` has the
    formulas). `kind`: "linear", "dynamic" (NTK-aware, by the length at hand), "ntk" (NTK-aware, fixed), "yarn" or
    "llama3". `original_context` is the length the model was trained on; the other fields belong to one kind each."""

    kind: str
    factor: float
    original_context: int
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn: what multiplies cos and sin; None: 0.1 ln(factor) + 1
    truncate: bool = True  # yarn: whole channels for the ramp's ends


@dataclass(frozen=True)
class Rotary:
    """Rotation of query and key by an angle that grows with the position (Su et al. 2021, section 3.2). Only the first
    `dim` channels of a head turn where it is given."""

    theta: float = 10_000.0
    dim: int | None = None
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class ALiBi:
    """A penalty on each score that grows with the distance, at a slope of its own for each head (Press, Smith & Lewis
    2022). `scale` multiplies the penalties. `rounded`: they are slope · place of the key, both rounded to bfloat16
    (Falcon), and so no longer a matter of the distance alone."""

    scale: float = 1.0
    rounded: bool = False


@dataclass(frozen=True)
class Relative:
    """A learned number added to each score, for each head and bucket of distances; the layers of a stack share it
    (Raffel et al. 2020, section 2.1)."""

    n_buckets: int = 32
    max_distance: int = 128


Positions = Learned | Sinusoidal | Rotary | ALiBi | Relative


@dataclass(frozen=True)
class Attention:
    """Multi-head, grouped-query (Ainslie et al. 2023) or multi-query (Shazeer 2019) attention, by `n_kv_heads`."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3, Gemma 3)
    scale: float | None = None  # of the scores; None: 1/sqrt(head_dim)
    softcap: float | None = None  # scores become softcap · tanh(scores / softcap) (Gemma 2)
    dropout: float = 0.0  # on the attention weights


@dataclass(frozen=True)
class FeedForward:
    """`gated` multiplies by a gate: down(act(gate x) * up x) (Shazeer 2020); otherwise down(act(up x))."""

    d_ff: int
    activation: str = "silu"  # silu, gelu, gelu_tanh, relu
    gated: bool = True
    bias: bool = False
    dropout: float = 0.0  # on the wide activations


@dataclass(frozen=True)
class Experts:
    """A sparse mixture: a router gives each token to `n_active` of `n_experts` feed-forwards (Shazeer et al. 2017;
    Jiang et al. 2024, section 2.1), and no token is dropped. Two losses keep the router in balance and its logits
    small: `balance_loss` (Fedus, Zoph & Shazeer 2022, equation 4) and `z_loss` (Zoph et al. 2022, equation 5) are
    their weights."""

    n_experts: int
    n_active: int
    balance_loss: float = 0.0
    z_loss: float = 0.0


@dataclass(frozen=True)
class Head:
    """From states to what they say. `transform`: a dense layer, this activation and a norm come first (BERT). `scale`
    multiplies the states (T5: d_model^-0.5 where tied). `bias` is one number a token of the vocabulary. `softcap` as in
    `Attention`, on the logits."""

    transform: str | None = None
    scale: float = 1.0
    bias: bool = False
    softcap: float | None = None


@dataclass(frozen=True)
class Sentence:
    """How an encoder's states become one vector of a text (Reimers & Gurevych 2019, section 3): `pooling` is "mean",
    "max" (of each channel) or "first" (the state of the token that opens the text); `normalize`: to length 1.

    The text: at most `max_tokens` of it are read, what opens and closes it included (None: the context). `lower`: in
    lower case. `prompts`: texts that go before it, by name; `prompt` is the name of the one that does unless another
    is asked for.
    """

    pooling: str = "mean"
    normalize: bool = True
    max_tokens: int | None = None
    lower: bool = False
    prompts: tuple[tuple[str, str], ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class ModelConfig:
    """A whole transformer.

    `kind`: "decoder" (each position sees what is before it), "encoder" (each sees all), or "encoder-decoder", which
    has `n_encoder_layers` beside its `n_layers` of the decoder. `context` is the longest sequence the model is made
    for. `residual` says where the norms stand: "pre", "post", "sandwich" (before and after), "parallel" (attention and
    feed-forward side by side behind one norm) or "parallel_two_norms". `windows`: for each layer, how many positions
    a query sees, itself included, or None for all; empty where no layer has one. `local_positions`: what windowed
    layers use in place of `positions` (Gemma 3).

    `embedding_scale` multiplies embeddings, `embedding_norm` normalizes them, `token_types` is the number of segment
    embeddings (BERT). `pooler`: a dense layer with tanh on the first position (BERT). `head` is None where a model ends
    in states (a sentence encoder). `sentence` says how states become one vector, where a model is made for that.

    `residual_dropout` and `embedding_dropout` are probabilities. `init_std` is the standard deviation of new weights,
    by the family's paper, or with `init_fan_in` that of new embeddings, where matrices have 1/sqrt(their inputs);
    `init_residual_scale` multiplies it for the two matrices of a block that write to the residual stream (GPT-2,
    section 2.3: 1/sqrt(2L)). `special_tokens` carries the ids a checkpoint needs (bos, eos, pad, and start: what a
    decoder's text begins with after an encoder), a name more than once where it has several.
    """

    family: str
    vocab_size: int
    d_model: int
    n_layers: int
    context: int
    attention: Attention
    feed_forward: FeedForward
    positions: Positions
    norm: Norm = field(default_factory=Norm)
    kind: str = "decoder"
    n_encoder_layers: int = 0
    residual: str = "pre"
    windows: tuple[int | None, ...] = ()
    local_positions: Positions | None = None
    experts: Experts | None = None
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    token_types: int = 0
    pooler: bool = False
    head: Head | None = field(default_factory=Head)
    sentence: Sentence | None = None
    tie_embeddings: bool = False
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    init_std: float = 0.02
    init_fan_in: bool = False
    init_residual_scale: float = 1.0
    special_tokens: tuple[tuple[str, int], ...] = ()

    def __post_init__(self):
        a = self.attention
        sizes = [
            ("vocab_size", self.vocab_size), ("d_model", self.d_model), ("n_layers", self.n_layers),
            ("context", self.context), ("n_heads", a.n_heads), ("n_kv_heads", a.n_kv_heads),
            ("head_dim", a.head_dim), ("d_ff", self.feed_forward.d_ff),
        ]
        if self.kind == "encoder-decoder":
            sizes.append(("n_encoder_layers", self.n_encoder_layers))
        if self.experts:
            sizes += [("n_experts", self.experts.n_experts), ("n_active", self.experts.n_active)]
        sizes += [("window", window) for window in self.windows if window is not None]
        for name, value in sizes:
            most = 10_000 if name.endswith("layers") else 1 << 24  # beyond, a number was mistyped
            if type(value) is not int or not 1 <= value <= most:
                raise RequestError(f"model.{name} is {value!r}; it must be a whole number from 1 to {most:,}")
        for name, value, most in (
            ("norm.eps", self.norm.eps, 1), ("init_std", self.init_std, 1e3),
            ("rope_theta", getattr(self.positions, "theta", 1.0), 1e15), ("attention dropout", a.dropout, 1),
            ("feed-forward dropout", self.feed_forward.dropout, 1),
            ("residual dropout", self.residual_dropout, 1), ("embedding dropout", self.embedding_dropout, 1),
        ):
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise RequestError(f"model: {name} is {value!r}; it must be a number from 0 to {most:g}")
        for name, value, allowed in (("kind", self.kind, KINDS), ("residual", self.residual, RESIDUALS)):
            if value not in allowed:
                raise RequestError(f"model.{name} is {value!r}; it must be one of {', '.join(allowed)}")
        if a.n_heads % a.n_kv_heads:
            raise RequestError(
                f"model.n_heads {a.n_heads} is not a multiple of model.n_kv_heads {a.n_kv_heads}: "
                "every key-value head serves an equal group of query heads"
            )
        if isinstance(self.positions, Rotary) and (self.positions.dim or a.head_dim) % 2:
            raise RequestError(
                f"the head width {self.positions.dim or a.head_dim} is odd; rotary positions turn pairs of channels: "
                "make it even"
            )
        if self.windows and len(self.windows) != self.n_layers:
            raise RequestError(f"model.windows has {len(self.windows)} entries; one for each of {self.n_layers} layers")
        if self.experts and self.experts.n_active > self.experts.n_experts:
            raise RequestError(
                f"model.n_active {self.experts.n_active} is more than the {self.experts.n_experts} experts there are"
            )

    def special(self, name: str) -> int | None:
        """The id of the special token `name` (bos, eos, pad, start), the first of several, or None."""
        return next(iter(self.specials(name)), None)

    def specials(self, name: str) -> tuple[int, ...]:
        """All ids of the special token `name`: a chat model may end with one of several."""
        return tuple(id for known, id in self.special_tokens if known == name)
