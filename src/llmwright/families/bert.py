"""BERT (Devlin et al. 2019): an encoder with learned positions, token types, norms after each addition and exact GELU.

Three architectures share one body: BertModel ends in states and a pooler, BertForMaskedLM in a head that fills masks,
BertForPreTraining in both. Its second head, which said whether one text follows another, is passed over: RoBERTa (Liu
et al. 2019, section 4.2) showed that nothing is lost, and our objectives have no use for it.
"""

from dataclasses import replace

from ..errors import RequestError
from ..model.config import Attention, FeedForward, Head, Learned, ModelConfig, Norm
from .family import ACTIVATIONS, Family, need, published_activation, refuse, special_tokens, write_special_tokens
from .names import Rule, rule

# What each architecture ends in: (pooler, head). Where files end otherwise than config.json says, `fit` follows them.
ARCHITECTURES = {
    "BertModel": (True, False), "BertForMaskedLM": (False, True), "BertForPreTraining": (True, True),
}


def read_encoder(
    c: dict, *, family: str, architectures: dict[str, tuple[bool, bool]], first_position: int = 0,
    head_activation: str | None = None,
) -> ModelConfig:
    """What BERT and RoBERTa have in common. `head_activation`: the head's own, where it is not the blocks'."""
    refuse(c, "hidden_act", tuple(ACTIVATIONS))
    refuse(c, "position_embedding_type", ("absolute", None))
    for key in ("is_decoder", "add_cross_attention"):
        refuse(c, key, (False, None))
    names = c.get("architectures") or [next(iter(architectures))]
    if not isinstance(names, list) or not isinstance(names[0], str) or names[0] not in architectures:
        raise RequestError(
            f"config.json: architectures = {names!r} is not supported; supported: {', '.join(architectures)}"
        )
    pooler, head = architectures[names[0]]
    d_model, n_heads, n_positions = need(c, "hidden_size"), need(c, "num_attention_heads"), _positions(c)
    if d_model % n_heads:
        raise RequestError(f"config.json: hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}")
    if n_positions <= first_position:
        raise RequestError(
            f"config.json: max_position_embeddings {n_positions} leaves no position for a text: the first "
            f"{first_position} are not used"
        )
    activation = ACTIVATIONS[c.get("hidden_act", "gelu")]
    dropout = c.get("hidden_dropout_prob", 0.1)
    return ModelConfig(
        kind="encoder",
        family=family,
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=need(c, "num_hidden_layers"),
        context=n_positions - first_position,
        attention=Attention(
            n_heads, n_heads, d_model // n_heads, qkv_bias=True, out_bias=True,
            dropout=c.get("attention_probs_dropout_prob", 0.1),
        ),
        feed_forward=FeedForward(need(c, "intermediate_size"), activation=activation, gated=False, bias=True),
        positions=Learned(n_positions, offset=first_position),
        norm=Norm("layer", eps=c.get("layer_norm_eps", 1e-12), bias=True),
        residual="post",
        embedding_norm=True,
        token_types=need({"type_vocab_size": 2, **c}, "type_vocab_size"),
        pooler=pooler,
        head=Head(head_activation or activation, bias=True) if head else None,
        tie_embeddings=c.get("tie_word_embeddings", True),
        residual_dropout=dropout,
        embedding_dropout=dropout,
        init_std=c.get("initializer_range", 0.02),
        special_tokens=special_tokens(c),
    )


def _positions(c: dict) -> int:
    return need({"max_position_embeddings": 512, **c}, "max_position_embeddings")


def write_encoder(config: ModelConfig, architectures: dict[str, tuple[bool, bool]]) -> dict:
    has_head = config.head is not None
    found = [name for name, (pooler, head) in architectures.items() if head == has_head]
    exact = [name for name in found if architectures[name][0] == config.pooler]
    return {
        "architectures": (exact or found)[:1],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.attention.n_heads,
        "intermediate_size": config.feed_forward.d_ff,
        "hidden_act": published_activation(config.feed_forward.activation, "gelu_new"),
        "max_position_embeddings": config.positions.n_positions,
        "position_embedding_type": "absolute",
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.norm.eps,
        "hidden_dropout_prob": config.residual_dropout,
        "attention_probs_dropout_prob": config.attention.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        **write_special_tokens(config),
    }


def fit(config: ModelConfig, names: set[str], head_begins: str, head_activation: str | None = None) -> ModelConfig:
    """A head is where its weights are. A pooler that `config.json` promises may be missing, as sentence encoders do not
    use it."""
    head = Head(head_activation or config.feed_forward.activation, bias=True)
    return replace(
        config,
        head=head if any(name.startswith(head_begins) for name in names) else None,
        pooler=config.pooler and any(name.endswith("pooler.dense.weight") for name in names),
    )


def both(theirs: str, ours: str) -> list[Rule]:
    """The rules of a layer's weight and bias."""
    return [rule(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def body(config: ModelConfig, prefix: str) -> list[Rule]:
    """The weights of embeddings, blocks and pooler. A model that ends in states publishes them without `prefix`."""
    prefix = prefix if config.head else ""
    rules = [
        rule(f"{prefix}embeddings.word_embeddings.weight", "embed.weight"),
        rule(f"{prefix}embeddings.position_embeddings.weight", "positions.weight"),
        rule(f"{prefix}embeddings.token_type_embeddings.weight", "token_types.weight"),
        *both(f"{prefix}embeddings.LayerNorm", "embedding_norm"),
    ]
    parts = {
        "attention.self.query": "attention.query", "attention.self.key": "attention.key",
        "attention.self.value": "attention.value", "attention.output.dense": "attention.out",
        "attention.output.LayerNorm": "attention_norm", "intermediate.dense": "feed_forward.up",
        "output.dense": "feed_forward.down", "output.LayerNorm": "feed_forward_norm",
    }
    for i in range(config.n_layers):
        for theirs, ours in parts.items():
            rules += both(f"{prefix}encoder.layer.{i}.{theirs}", f"blocks.{i}.{ours}")
    if config.pooler:
        rules += both(f"{prefix}pooler.dense", "pooler")
    return rules


def head(config: ModelConfig, dense: str, norm: str, bias: str, decoder: str) -> list[Rule]:
    """The weights of the head that fills masks, by their published names."""
    if config.head is None:
        return []
    rules = [*both(dense, "head.transform"), *both(norm, "head.transform_norm"), rule(bias, "head.bias")]
    if not config.tie_embeddings:  # then the bias stands twice, and the decoder's own counts
        rules += both(decoder, "head")
    return rules


def _read(c: dict) -> ModelConfig:
    return read_encoder(c, family="bert", architectures=ARCHITECTURES)


def _write(config: ModelConfig) -> dict:
    return write_encoder(config, ARCHITECTURES)


def _fit(config: ModelConfig, names: set[str]) -> ModelConfig:
    return fit(config, names, "cls.predictions.")


def _rules(config: ModelConfig) -> list[Rule]:
    p = "cls.predictions"
    return body(config, "bert.") + head(
        config, f"{p}.transform.dense", f"{p}.transform.LayerNorm", f"{p}.bias", f"{p}.decoder"
    )


BERT = Family(
    "bert", "BertForMaskedLM", _read, _write, _rules,
    prefix="bert.",
    ignored=(
        "position_ids", "pooler.dense.weight", "pooler.dense.bias", "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    ),
    tied=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    renamed=((".gamma", ".weight"), (".beta", ".bias")),  # the norms' names in the files of 2018
    fit=_fit,
)
