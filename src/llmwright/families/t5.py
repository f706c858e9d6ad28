"""T5 (Raffel et al. 2020), its version 1.1 (Shazeer 2020) and FLAN-T5 (Chung et al. 2022): encoder-decoder, relative
position buckets, RMSNorm before each part, no biases, scores without 1/sqrt(head width) (the new queries are smaller
instead).

Version 1.0 has one table for input and output, logits scaled by d_model^-0.5, and ReLU. Version 1.1 and FLAN have a head
of their own, no scaling, and GELU with a gate. The file says which: transformers 5 writes that a model is tied in any
case. Not here: T5's dropout on a stack's last states.
"""

from dataclasses import replace

from ..errors import RequestError
from ..model.config import Attention, FeedForward, Head, ModelConfig, Norm, Relative
from .family import Family, need, refuse, special_tokens, start_token, write_special_tokens
from .names import Rule, rule

# feed_forward_proj → activation, whether there is a gate. The gate's "gelu" is the approximation by tanh.
_FEED_FORWARD = {
    "relu": ("relu", False), "gated-gelu": ("gelu_tanh", True), "gated-silu": ("silu", True), "gated-relu": ("relu", True),
    "gelu": ("gelu", False), "gelu_new": ("gelu_tanh", False), "silu": ("silu", False),
    "gated-gelu_new": ("gelu_tanh", True), "gated-swish": ("silu", True),
}
_NAMES = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def _read(c: dict) -> ModelConfig:
    projection = c.get("feed_forward_proj", "relu")
    refuse(c, "feed_forward_proj", tuple(_FEED_FORWARD))
    activation, gated = _FEED_FORWARD[projection]
    refuse(c, "is_encoder_decoder", (True,))
    if c.get("relative_attention_num_buckets") in (1, 2, 3):
        raise RequestError("config.json: relative_attention_num_buckets is not allowed below 4: half of them are for one "
                           "side, and half of those for single distances")
    for key, said in (("dense_act_fn", activation), ("is_gated_act", gated)):
        if _NAMES.get(c.get(key), c.get(key)) not in (said, None):
            raise RequestError(f"config.json: {key} = {c[key]!r} disagrees with feed_forward_proj = {projection!r}")
    d_model, n_heads, n_layers = need(c, "d_model"), need(c, "num_heads"), need(c, "num_layers")
    dropout = c.get("dropout_rate", 0.1)
    pad = c.get("pad_token_id", 0)
    scaled = c.get("scale_decoder_outputs", c.get("tie_word_embeddings") is not False)
    return ModelConfig(
        family="t5",
        kind="encoder-decoder",
        vocab_size=need(c, "vocab_size"),
        d_model=d_model,
        n_layers=n_layers if c.get("num_decoder_layers") is None else need(c, "num_decoder_layers"),
        n_encoder_layers=n_layers,
        context=c.get("n_positions") or 512,
        attention=Attention(n_heads, n_heads, need({"d_kv": 64} | c, "d_kv"), scale=1.0, dropout=dropout),
        feed_forward=FeedForward(need(c, "d_ff"), activation, gated, dropout=dropout),
        positions=Relative(
            n_buckets=need({"relative_attention_num_buckets": 32} | c, "relative_attention_num_buckets"),
            max_distance=need({"relative_attention_max_distance": 128} | c, "relative_attention_max_distance"),
        ),
        norm=Norm("rms", eps=c.get("layer_norm_epsilon", 1e-6)),
        head=Head(scale=d_model**-0.5 if scaled else 1.0),
        tie_embeddings=bool(scaled),
        residual_dropout=dropout,
        embedding_dropout=dropout,
        init_std=c.get("initializer_factor", 1.0),
        init_fan_in=True,
        special_tokens=(*special_tokens({"pad_token_id": 0, "eos_token_id": 1} | c), start_token(c, pad)),
    )


def _write(config: ModelConfig) -> dict:
    f = config.feed_forward
    published = {ours: theirs for theirs, ours in reversed(_FEED_FORWARD.items())}
    scaled = config.head.scale != 1
    return {
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "num_layers": config.n_encoder_layers,
        "num_decoder_layers": config.n_layers,
        "num_heads": config.attention.n_heads,
        "d_kv": config.attention.head_dim,
        "d_ff": f.d_ff,
        "feed_forward_proj": published[f.activation, f.gated],
        "n_positions": config.context,
        "relative_attention_num_buckets": config.positions.n_buckets,
        "relative_attention_max_distance": config.positions.max_distance,
        "layer_norm_epsilon": config.norm.eps,
        "dropout_rate": config.residual_dropout,
        "initializer_factor": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": scaled,
        **write_special_tokens(config),
        "decoder_start_token_id": config.special("start"),
    }


def _fit(config: ModelConfig, names: set[str]) -> ModelConfig:
    """Without scaled logits, the head is the file's own where it has one."""
    if config.head.scale != 1:
        return config
    return replace(config, tie_embeddings="lm_head.weight" not in names)


def _rules(config: ModelConfig) -> list[Rule]:
    attention = {"q": "query", "k": "key", "v": "value", "o": "out"}
    if config.feed_forward.gated:
        feed_forward = {"DenseReluDense.wi_0": "gate", "DenseReluDense.wi_1": "up", "DenseReluDense.wo": "down"}
    else:
        feed_forward = {"DenseReluDense.wi": "up", "DenseReluDense.wo": "down"}
    parts = {"encoder": ["SelfAttention"], "decoder": ["SelfAttention", "EncDecAttention"]}
    ours = {"SelfAttention": "attention", "EncDecAttention": "cross_attention"}
    names = {"shared": "embed"}
    for stack, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_layers)):
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        names |= {first: f"{stack}.positions", f"{stack}.final_layer_norm": f"{stack}.norm"}
        for i in range(layers):
            block = f"{stack}.blocks.{i}"
            for place, part in enumerate([*parts[stack], "feed_forward"]):
                layer = f"{stack}.block.{i}.layer.{place}"
                own = ours.get(part, part)
                names[f"{layer}.layer_norm"] = f"{block}.{own}_norm"
                for t, o in (attention if part in ours else feed_forward).items():
                    names[f"{layer}.{part}.{t}" if part in ours else f"{layer}.{t}"] = f"{block}.{own}.{o}"
    if not config.tie_embeddings:
        names["lm_head"] = "head"
    return [rule(f"{t}.weight", f"{o}.weight") for t, o in names.items()]


T5 = Family(
    "t5", "T5ForConditionalGeneration", _read, _write, _rules, fit=_fit,
    ignored=(
        "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",  # repeat shared.weight
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",  # in old files, without a use
    ),
)
