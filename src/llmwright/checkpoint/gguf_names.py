"""What a model's numbers and weights are called in GGUF, and in the published files, architecture by architecture.

llama.cpp names weights its own way (`blk.0.attn_q.weight`), and its converter changes some: it turns the rows of query
and key so that the two channels of a rotary pair are neighbours (Llama), adds the 1 that Gemma's norms add later,
transposes GPT-2's matrices, and puts all queries before all keys and values where a family interleaves them. Each such
change is here with its inverse.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import RequestError
from . import gguf_rope
from .gguf_file import Entry, GGUFFile
from .weights import Stored


@dataclass(frozen=True)
class Change:
    """`do` makes of a published tensor the one in the file, `undo` the reverse. Both take (tensor, config.json)."""

    do: Callable[[Tensor, dict], Tensor]
    undo: Callable[[Tensor, dict], Tensor]


def _pairs(heads: str) -> Change:
    """A head's rows: the published order has the first channels of all rotary pairs, then the second ones; the file has
    pair after pair."""

    def do(t, c):
        return t.view(c[heads], 2, -1, *t.shape[1:]).transpose(1, 2).reshape(t.shape)

    def undo(t, c):
        return t.view(c[heads], -1, 2, *t.shape[1:]).transpose(1, 2).reshape(t.shape)

    return Change(do, undo)


TRANSPOSED = Change(lambda t, c: t.t(), lambda t, c: t.t())
PLUS_ONE = Change(lambda t, c: t + 1, lambda t, c: t - 1)


@dataclass(frozen=True)
class Architecture:
    """`keys`: metadata below the architecture's name → config.json, the sizes and rates. `names`: the file's weights →
    the published ones, without ".weight" and ".bias"; {i} is the layer, {e} an expert, of which the file has all in one
    tensor. `changes`: by the file's name. `config` and `metadata` give what is not the same number under another key.
    """

    families: tuple[str, ...]  # model_type of config.json
    keys: dict[str, str]
    names: dict[str, str]
    config: Callable[[GGUFFile, dict], dict]
    metadata: Callable[[dict], dict] = lambda c: {}
    changes: dict[str, Change] = field(default_factory=dict)


# Llama and what is built like it

_SIZES = {
    "block_count": "num_hidden_layers", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_LLAMA = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm", "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj", "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj", "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
_HEAD_NORMS = {
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm", "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
}


def _head_dim(c: dict) -> int:
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def _llama_like(model_type: str) -> Callable[[GGUFFile, dict], dict]:
    def config(gguf: GGUFFile, c: dict) -> dict:
        arch = gguf.metadata.get("general.architecture", str)
        if c["num_attention_heads"] < 1 or c["hidden_size"] % c["num_attention_heads"] and "head_dim" not in c:
            raise RequestError(f"{gguf.path}: {c['num_attention_heads']} heads do not divide the width {c['hidden_size']}")
        return {
            "model_type": model_type, "head_dim": _head_dim(c), "hidden_act": "silu",
            "num_key_value_heads": c.get("num_key_value_heads") or c["num_attention_heads"],
            "rope_parameters": gguf_rope.read(gguf, arch, _head_dim(c)),
        }

    return config


def _llama_config(gguf: GGUFFile, c: dict) -> dict:
    found = _llama_like("llama")(gguf, c)
    window = gguf.metadata.get("llama.attention.sliding_window", int, 0)
    if window:
        return found | {"model_type": "mistral", "sliding_window": window}
    return found | {"attention_bias": "blk.0.attn_q.bias" in gguf.tensors, "mlp_bias": "blk.0.ffn_up.bias" in gguf.tensors}


def _llama_metadata(c: dict) -> dict:
    return {"attention.sliding_window": c["sliding_window"]} if c.get("sliding_window") else {}


PAIRS = {"blk.{i}.attn_q": _pairs("num_attention_heads"), "blk.{i}.attn_k": _pairs("num_key_value_heads")}

# GPT-2

_GPT2_SIZES = {
    "block_count": "n_layer", "context_length": "n_positions", "embedding_length": "n_embd",
    "feed_forward_length": "n_inner", "attention.head_count": "n_head", "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_GPT2 = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head", "blk.{i}.attn_norm": "transformer.h.{i}.ln_1", "blk.{i}.attn_qkv": "transformer.h.{i}.attn.c_attn",
    "blk.{i}.attn_output": "transformer.h.{i}.attn.c_proj", "blk.{i}.ffn_norm": "transformer.h.{i}.ln_2",
    "blk.{i}.ffn_up": "transformer.h.{i}.mlp.c_fc", "blk.{i}.ffn_down": "transformer.h.{i}.mlp.c_proj",
}
_GPT2_MATRICES = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


def _gpt2_metadata(c: dict) -> dict:
    if c["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
        raise RequestError(f"llama.cpp's GPT-2 has the activation gelu_new; this one has {c['activation_function']}")
    return {}


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(("llama", "mistral"), _SIZES, _LLAMA, _llama_config, _llama_metadata, PAIRS),
    "qwen3": Architecture(("qwen3",), _SIZES, _LLAMA | _HEAD_NORMS, _llama_like("qwen3")),
    "gpt2": Architecture(
        ("gpt2",), _GPT2_SIZES, _GPT2, lambda gguf, c: {"model_type": "gpt2", "activation_function": "gelu_new"},
        _gpt2_metadata, {f"blk.{{i}}.{name}": TRANSPOSED for name in _GPT2_MATRICES}),
}


def find(gguf: GGUFFile) -> tuple[str, Architecture]:
    name = gguf.metadata.get("general.architecture", str)
    if name not in ARCHITECTURES:
        raise RequestError(f"{gguf.path}: its architecture {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    return name, ARCHITECTURES[name]


def of_family(model_type: str) -> tuple[str, Architecture]:
    """The architecture that a family is written as."""
    for name, architecture in ARCHITECTURES.items():
        if model_type in architecture.families:
            return name, architecture
    known = ", ".join(family for a in ARCHITECTURES.values() for family in a.families)
    raise RequestError(f"the {model_type} family cannot be written as GGUF; these can: {known}")


def read_config(gguf: GGUFFile) -> dict:
    """The metadata as a published config.json."""
    arch, architecture = find(gguf)
    embeddings = gguf.tensors.get("token_embd.weight")
    if embeddings is None:
        raise RequestError(f"{gguf.path}: it has no token_embd.weight: a vocabulary or an adapter without a model?")
    c: dict = {"vocab_size": embeddings.shape[0], "tie_word_embeddings": "output.weight" not in gguf.tensors}
    for key, ours in architecture.keys.items():
        name, optional = f"{arch}.{key}", key in ("attention.head_count_kv", "attention.key_length")
        if name in gguf.metadata or not optional:
            real = key.endswith("epsilon")
            value = gguf.metadata.get(name, float if real else int)
            c[ours] = gguf_rope.short(value) if real else value
    for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        i = gguf.metadata.get(f"tokenizer.ggml.{name}_token_id", int, None)
        c[f"{role}_token_id"] = i if i is not None and 0 <= i < embeddings.shape[0] else None
    return c | architecture.config(gguf, c)


def published(gguf: GGUFFile, c: dict) -> list[Stored]:
    """The file's weights under their published names; a weight with no such name keeps its own."""
    architecture = find(gguf)[1]
    patterns = [(_pattern(stem), stem, theirs) for stem, theirs in architecture.names.items()]
    found = []
    for entry in gguf.tensors.values():
        if entry.name == gguf_rope.FACTORS:
            continue
        base, _, kind = entry.name.rpartition(".")
        for pattern, stem, theirs in patterns:
            if match := pattern.fullmatch(base):
                name = f"{theirs.replace('{i}', match[1] if match.lastindex else '')}.{kind}"
                change = architecture.changes.get(stem)
                parts = entry.parts() if "{e}" in name else [entry]
                found += [_stored(name.replace("{e}", str(e)), part, change, c) for e, part in enumerate(parts)]
                break
        else:
            found.append(_stored(entry.name, entry, None, c))
    return found


def _pattern(stem: str) -> re.Pattern:
    return re.compile(re.escape(stem).replace(re.escape("{i}"), r"(0|[1-9]\d*)"))


def _stored(name: str, entry: Entry, change: Change | None, c: dict) -> Stored:
    shape, read = entry.shape, entry.read
    if change is not None:
        try:
            shape = tuple(change.undo(torch.empty(entry.shape, device="meta"), c).shape)
        except RuntimeError:  # it does not even divide; the shape itself says what is wrong
            change = None
        else:
            def read() -> Tensor:
                return change.undo(entry.read(), c)
    return Stored(name, shape, entry.kind.name, entry.file.path, True, read, entry.forget)


@dataclass(frozen=True)
class Place:
    """Where published weights go in the file: one, or a layer's experts, and what is changed on the way."""

    name: str
    published: tuple[str, ...]
    change: Change | None

    def make(self, weights: list[Tensor], c: dict) -> Tensor:
        if self.change:
            weights = [self.change.do(t, c) for t in weights]
        return weights[0] if len(weights) == 1 else torch.stack(weights)


def places(names: Iterable[str], architecture: Architecture, c: dict) -> list[Place]:
    """The places of the published `names`, in the order of the layers. RequestError for a weight that has none."""
    left, found = dict.fromkeys(names), []
    layers = c.get("num_hidden_layers") or c.get("n_layer")
    once, each = ({s: t for s, t in architecture.names.items() if ("{i}" in s) == layer} for layer in (False, True))
    for i, stems in [(None, once), *((i, each) for i in range(layers))]:
        for stem, theirs in stems.items():
            for kind in ("weight", "bias"):
                name = f"{theirs.replace('{i}', str(i))}.{kind}"
                experts = range(c.get("num_local_experts") or 0) if "{e}" in name else (0,)
                parts = tuple(name.replace("{e}", str(e)) for e in experts)
                if parts and all(part in left for part in parts):
                    for part in parts:
                        left.pop(part)
                    found.append(Place(f"{stem.replace('{i}', str(i))}.{kind}", parts, architecture.changes.get(stem)))
    if left:
        raise RequestError(f"llama.cpp has no place for the weight {next(iter(left))}")
    return found
