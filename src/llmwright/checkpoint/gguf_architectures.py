"""llama.cpp's architectures: what each calls its numbers and weights, and how config.json says the same.

What llama.cpp fixes in its code (an activation, which layers slide) is `fixed` here: a model that differs is refused
when written, since the file could not say so.
"""

from ..errors import RequestError
from . import gguf_rope
from .gguf_file import GGUFFile
from .gguf_names import Architecture, Change, grouped, pairs

# Llama, and what is built like it

_SIZES = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_EXPERTS = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_LAYER = "model.layers.{i}."
_COMMON = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "blk.{i}.attn_norm": _LAYER + "input_layernorm",
    "blk.{i}.attn_q": _LAYER + "self_attn.q_proj", "blk.{i}.attn_k": _LAYER + "self_attn.k_proj",
    "blk.{i}.attn_v": _LAYER + "self_attn.v_proj", "blk.{i}.attn_output": _LAYER + "self_attn.o_proj",
    "blk.{i}.ffn_gate": _LAYER + "mlp.gate_proj", "blk.{i}.ffn_up": _LAYER + "mlp.up_proj",
    "blk.{i}.ffn_down": _LAYER + "mlp.down_proj",
}
_LLAMA = _COMMON | {"blk.{i}.ffn_norm": _LAYER + "post_attention_layernorm"}
_MIXTURE = {
    "blk.{i}.ffn_gate_inp": _LAYER + "block_sparse_moe.gate",
    "blk.{i}.ffn_gate_exps": _LAYER + "block_sparse_moe.experts.{e}.w1",
    "blk.{i}.ffn_up_exps": _LAYER + "block_sparse_moe.experts.{e}.w3",
    "blk.{i}.ffn_down_exps": _LAYER + "block_sparse_moe.experts.{e}.w2",
}
_HEAD_NORMS = {"blk.{i}.attn_q_norm": _LAYER + "self_attn.q_norm", "blk.{i}.attn_k_norm": _LAYER + "self_attn.k_norm"}


def _tied(names: dict[str, str]) -> dict[str, str]:
    """Without a head of its own, which llama.cpp has no place for here."""
    return {stem: name for stem, name in names.items() if stem != "output"}


def _heads(gguf: GGUFFile, c: dict) -> dict:
    """The keys about heads that a file may leave out, and the rotary settings."""
    arch, n_heads = gguf.metadata.get("general.architecture", str), c["num_attention_heads"]
    if "head_dim" not in c and (n_heads < 1 or c["hidden_size"] % n_heads):
        raise RequestError(f"{gguf.path}: {n_heads} heads do not divide the width {c['hidden_size']}")
    head_dim = c.get("head_dim") or c["hidden_size"] // n_heads
    return {"head_dim": head_dim, "num_key_value_heads": c.get("num_key_value_heads") or n_heads,
            "rope_parameters": gguf_rope.read(gguf, arch, head_dim)}


def _llama(gguf: GGUFFile, c: dict) -> dict:
    found = {"hidden_act": "silu"} | _heads(gguf, c)
    window = gguf.metadata.get("llama.attention.sliding_window", int, 0) or None
    if c.get("num_local_experts"):
        return found | {"model_type": "mixtral", "sliding_window": window}
    found["num_local_experts"] = None  # some files say 0
    if window:
        return found | {"model_type": "mistral", "sliding_window": window}
    return found | {"model_type": "llama", "attention_bias": "blk.0.attn_q.bias" in gguf.tensors,
                    "mlp_bias": "blk.0.ffn_up.bias" in gguf.tensors}


def _window(c: dict) -> dict:
    """llama.cpp does not read it for this architecture; we do."""
    return {"attention.sliding_window": c["sliding_window"]} if c.get("sliding_window") else {}


def _qwen(model_type: str):
    def config(gguf: GGUFFile, c: dict) -> dict:
        bias = {"attention_bias": "blk.0.attn_q.bias" in gguf.tensors} if model_type == "qwen3" else {}
        return {"model_type": model_type, "hidden_act": "silu", **bias, **_heads(gguf, c)}

    return config


# Gemma: norms with their 1 added; two of each around every part from the second on

_PLUS_ONE = Change(lambda t, c: t + 1, lambda t, c: t.float() - 1)
_GEMMA = "gelu_pytorch_tanh"
_SANDWICH = _COMMON | {
    "blk.{i}.post_attention_norm": _LAYER + "post_attention_layernorm",
    "blk.{i}.ffn_norm": _LAYER + "pre_feedforward_layernorm",
    "blk.{i}.post_ffw_norm": _LAYER + "post_feedforward_layernorm",
}
_CAPS = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
_EVERY = {"gemma2": 2, "gemma3": 6}  # of so many layers the last sees all
_WIDEST = {"gemma2": 46, "gemma3": 62}  # layers of the 27B models, whose scores are scaled by the width a head has


def _gemma_norms(names: dict[str, str]) -> dict[str, Change]:
    return {stem: _PLUS_ONE for stem in names if stem.endswith("norm")}


def _gemma(gguf: GGUFFile, c: dict) -> dict:
    return {"model_type": "gemma", "hidden_activation": _GEMMA, "hidden_act": _GEMMA, **_heads(gguf, c)}


def _scale(arch: str, c: dict) -> int:
    wide = c["num_hidden_layers"] == _WIDEST[arch]
    return c["hidden_size"] // c["num_attention_heads"] if wide else c["head_dim"]


def _sliding(arch: str, layers: int) -> list[str]:
    every = _EVERY[arch]
    return ["full_attention" if i % every == every - 1 else "sliding_attention" for i in range(layers)]


def _gemma_with_windows(arch: str, model_type: str):
    def config(gguf: GGUFFile, c: dict) -> dict:
        found = _gemma(gguf, c) | {"model_type": model_type}
        for key, ours in _CAPS.items():
            value = gguf.metadata.get(f"{arch}.{key}", float, 0.0)
            found[ours] = value or None
        window = gguf.metadata.get(f"{arch}.attention.sliding_window", int, 4096 if arch == "gemma2" else 0)
        types = _sliding(arch, c["num_hidden_layers"]) if window else ["full_attention"] * c["num_hidden_layers"]
        found |= {"sliding_window": window or None, "layer_types": types,
                  "query_pre_attn_scalar": _scale(arch, c | found)}
        if arch == "gemma3":
            near = gguf_rope.short(gguf.metadata.get("gemma3.rope.freq_base_swa", float, 10_000.0))
            found["rope_parameters"] = {"full_attention": found["rope_parameters"],
                                        "sliding_attention": {"rope_type": "default", "rope_theta": near}}
        return found

    def metadata(c: dict) -> dict:
        types = c["layer_types"]
        if "sliding_attention" in types and types != _sliding(arch, c["num_hidden_layers"]):
            raise RequestError(f"llama.cpp's {arch} has a full layer after every {_EVERY[arch] - 1} with a window; "
                               "this model's layer_types differ")
        if c["query_pre_attn_scalar"] != _scale(arch, c):
            raise RequestError(f"llama.cpp's {arch} has a query_pre_attn_scalar of {_scale(arch, c)} with these "
                               f"sizes, not {c['query_pre_attn_scalar']}")
        found = {key: c[ours] for key, ours in _CAPS.items() if c.get(ours)}
        if "sliding_attention" in types:
            found["attention.sliding_window"] = c["sliding_window"]
        if arch == "gemma3" and "sliding_attention" in types:
            near = c["rope_parameters"]["sliding_attention"]
            if near["rope_type"] != "default":
                raise RequestError("llama.cpp's gemma3 has no rope scaling in the layers with a window")
            found["rope.freq_base_swa"] = float(near["rope_theta"])
        return found

    return config, metadata


_gemma2, _write_gemma2 = _gemma_with_windows("gemma2", "gemma2")
_gemma3, _write_gemma3 = _gemma_with_windows("gemma3", "gemma3_text")

# GPT-2, BLOOM, Falcon: query, key and value in one matrix

_OWN = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.{i}.attn_norm": "transformer.h.{i}.ln_1", "blk.{i}.attn_qkv": "transformer.h.{i}.attn.c_attn",
    "blk.{i}.attn_output": "transformer.h.{i}.attn.c_proj", "blk.{i}.ffn_norm": "transformer.h.{i}.ln_2",
    "blk.{i}.ffn_up": "transformer.h.{i}.mlp.c_fc", "blk.{i}.ffn_down": "transformer.h.{i}.mlp.c_proj",
}
_TRANSPOSED = Change(lambda t, c: t.t(), lambda t, c: t.t())
_GPT2_SIZES = {
    "block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
    "feed_forward_length": "n_inner", "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_BLOOM_SIZES = {
    "block_count": "n_layer", "context_length": "seq_length", "embedding_length": "hidden_size",
    "attention.head_count": "n_head", "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_FUSED = {
    "token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f", "output": "lm_head",
    "blk.{i}.attn_qkv": "transformer.h.{i}.self_attention.query_key_value",
    "blk.{i}.attn_output": "transformer.h.{i}.self_attention.dense",
    "blk.{i}.ffn_up": "transformer.h.{i}.mlp.dense_h_to_4h", "blk.{i}.ffn_down": "transformer.h.{i}.mlp.dense_4h_to_h",
}
_BLOOM = _FUSED | {
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "blk.{i}.attn_norm": "transformer.h.{i}.input_layernorm",
    "blk.{i}.ffn_norm": "transformer.h.{i}.post_attention_layernorm",
}
_FALCON_SIZES = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "ffn_hidden_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_kv_heads", "attention.layer_norm_epsilon": "layer_norm_epsilon",
}


def _bloom_metadata(c: dict) -> dict:
    return {"feed_forward_length": 4 * c["hidden_size"], "attention.head_count_kv": c["n_head"]}


def _falcon_names(two: bool) -> dict[str, str]:
    """With one norm it is called input_layernorm; with two, the feed-forward's comes first in the file."""
    layer = "transformer.h.{i}."
    return _FUSED | ({"blk.{i}.attn_norm": layer + "ln_mlp", "blk.{i}.attn_norm_2": layer + "ln_attn"} if two
                     else {"blk.{i}.attn_norm": layer + "input_layernorm"})


def _falcon(gguf: GGUFFile, c: dict) -> dict:
    heads, kv = c["num_attention_heads"], c.get("num_kv_heads") or c["num_attention_heads"]
    if heads < 1 or c["hidden_size"] % heads:
        raise RequestError(f"{gguf.path}: {heads} heads do not divide the width {c['hidden_size']}")
    two = "blk.0.attn_norm_2.weight" in gguf.tensors
    new = two or kv not in (1, heads)
    return {
        "model_type": "falcon", "num_kv_heads": kv, "multi_query": kv == 1, "new_decoder_architecture": new,
        "num_ln_in_parallel_attn": 2 if two else 1 if new else None, "parallel_attn": True, "bias": False,
        "alibi": False, "activation": "gelu",
        "rope_parameters": gguf_rope.read(gguf, "falcon", c["hidden_size"] // heads),
    }


_SILU, _GELU = {"hidden_act": ("silu",)}, {"hidden_act": (_GEMMA,)}
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        ("llama", "mistral", "mixtral"), _SIZES | _EXPERTS, _LLAMA | _MIXTURE, _llama, _window,
        changes={"blk.{i}.attn_q": pairs("num_attention_heads"), "blk.{i}.attn_k": pairs("num_key_value_heads")},
        fixed=_SILU),
    "qwen2": Architecture(("qwen2",), _SIZES, _LLAMA, _qwen("qwen2"), fixed=_SILU | {"use_sliding_window": (False,)}),
    "qwen3": Architecture(("qwen3",), _SIZES, _LLAMA | _HEAD_NORMS, _qwen("qwen3"),
                          fixed=_SILU | {"use_sliding_window": (False,)}),
    "gemma": Architecture(("gemma",), _SIZES, _tied(_LLAMA), _gemma, changes=_gemma_norms(_LLAMA), fixed=_GELU),
    "gemma2": Architecture(("gemma2",), _SIZES, _tied(_SANDWICH), _gemma2, _write_gemma2,
                           _gemma_norms(_SANDWICH), _GELU),
    "gemma3": Architecture(("gemma3_text",), _SIZES, _SANDWICH | _HEAD_NORMS, _gemma3, _write_gemma3,
                           _gemma_norms(_SANDWICH | _HEAD_NORMS), _GELU),
    "gpt2": Architecture(
        ("gpt2",), _GPT2_SIZES, _OWN, lambda gguf, c: {"model_type": "gpt2", "activation_function": "gelu_new"},
        changes={f"blk.{{i}}.{name}": _TRANSPOSED for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
        fixed={"activation_function": ("gelu_new", "gelu_pytorch_tanh")}),
    "bloom": Architecture(
        ("bloom",), _BLOOM_SIZES, _tied(_BLOOM), lambda gguf, c: {"model_type": "bloom"}, _bloom_metadata,
        {"blk.{i}.attn_qkv": grouped("n_head", "n_head")}),
    "falcon": Architecture(
        ("falcon",), _FALCON_SIZES, _falcon_names, _falcon, lambda c: {"tensor_data_layout": "jploski"},
        {"blk.{i}.attn_qkv": grouped("num_attention_heads", "num_kv_heads")},
        {"alibi": (False,), "bias": (False,), "parallel_attn": (True,),
         "activation": ("gelu", "gelu_pytorch_tanh", "gelu_new")}),
}
OPTIONAL = ("attention.head_count_kv", "attention.key_length", *_EXPERTS)


def find(gguf: GGUFFile) -> tuple[str, Architecture]:
    """The file's architecture, by llama.cpp's name."""
    name = gguf.metadata.get("general.architecture", str)
    if name not in ARCHITECTURES:
        raise RequestError(f"{gguf.path}: its architecture {name!r} is not supported; supported: "
                           f"{', '.join(ARCHITECTURES)}")
    return name, ARCHITECTURES[name]


def of_config(c: dict) -> tuple[str, Architecture]:
    """The architecture that a model is written as. RequestError for a family, or a setting, that none has."""
    for name, architecture in ARCHITECTURES.items():
        if c["model_type"] in architecture.families:
            for key, allowed in architecture.fixed.items():
                if c.get(key, allowed[0]) not in allowed:
                    said = " or ".join(map(str, allowed))
                    raise RequestError(f"llama.cpp's {name} has {key} {said}; this model has {c[key]}")
            return name, architecture
    known = ", ".join(family for a in ARCHITECTURES.values() for family in a.families)
    raise RequestError(f"the {c['model_type']} family cannot be written as GGUF; these can: {known}")


def read_config(gguf: GGUFFile) -> dict:
    """The metadata as a published config.json."""
    arch, architecture = find(gguf)
    embeddings = gguf.tensors.get("token_embd.weight")
    if embeddings is None:
        raise RequestError(f"{gguf.path}: it has no token_embd.weight: a vocabulary or an adapter without a model?")
    c: dict = {"vocab_size": embeddings.shape[0], "tie_word_embeddings": "output.weight" not in gguf.tensors}
    for key, ours in architecture.keys.items():
        name, real = f"{arch}.{key}", key.endswith("epsilon")
        if name in gguf.metadata or key not in OPTIONAL:
            value = gguf.metadata.get(name, float if real else int)
            c[ours] = gguf_rope.short(value) if real else value
    roles = ("bos", "eos", "eot", "padding")
    ids = {name: gguf.metadata.get(f"tokenizer.ggml.{name}_token_id", int, -1) for name in roles}
    ids = {name: i for name, i in ids.items() if 0 <= i < c["vocab_size"]}
    ends = list(dict.fromkeys(ids[name] for name in ("eos", "eot") if name in ids))  # a turn's end ends a text too
    c |= {"bos_token_id": ids.get("bos"), "eos_token_id": ends if len(ends) > 1 else ids.get("eos"),
          "pad_token_id": ids.get("padding")}
    return c | architecture.config(gguf, c)
