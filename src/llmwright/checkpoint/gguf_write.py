"""Writing a model as a GGUF file, as llama.cpp's own converter would.

Vectors, routers and position tables stay float32, as there. Matrices take the chosen format; where a row is not a
multiple of its block, float16. In a file of 4 bits the head (and an embedding that serves as one) has 8: it decides
every token, and loses most.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import families
from ..errors import RequestError, WorkError
from ..families.names import published_shape, to_published
from ..model.config import ModelConfig, Rotary
from ..model.transformer import Transformer
from ..progress import Progress
from ..tokens import gguf_tokenizer
from ..tokens.tokenizer import Tokenizer
from . import gguf_architectures, gguf_names, gguf_rope
from .files import new_file
from .gguf_types import TYPES

FORMATS = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}  # ggml's numbers
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}  # what llama.cpp says of the whole file
IN_FULL = ("ffn_gate_inp.weight", "position_embd.weight")
HEADS = ("output.weight", "token_embd.weight")


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    format: int
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return TYPES[self.format].nbytes(math.prod(self.shape))


def save(
    model: Transformer, path: Path | str, *, tokenizer: Tokenizer, kind: str = "q8_0", pre: str | None = None,
    name: str | None = None, chat_template: str | None = None, progress: Progress = Progress(),
) -> None:
    """Write `model` and `tokenizer` at `path`, atomically, its matrices as `kind`: f32, f16, bf16, q8_0 or q4_0.

    `pre`: see `tokens.gguf_tokenizer.write`. `name`: what the file says it is. `chat_template`: default, the one in the
    tokenizer's configuration. Raises RequestError where llama.cpp has no such family, tokenizer or setting.
    """
    if kind not in FORMATS:
        raise RequestError(f"GGUF type {kind!r} cannot be written; these can: {', '.join(FORMATS)}")
    model.check_whole()
    from gguf import GGMLQuantizationType, GGUFWriter

    config = families.write_config(model.config)
    arch, architecture = gguf_architectures.of_config(config)
    tensors = _tensors(model, architecture, config, kind)
    entries = {"general.type": "model", "general.name": name or Path(path).stem, "general.file_type": FILE_TYPES[kind],
               "general.quantization_version": 2}
    entries |= {f"{arch}.{key}": value for key, value in _settings(model, architecture, config, tensors).items()}
    entries |= gguf_tokenizer.write(tokenizer, model.config.vocab_size, pre)
    ends = [i for role, i in model.config.special_tokens if role == "eos" and i != tokenizer.eos_id]
    if ends and tokenizer.eos_id is not None:
        entries["tokenizer.ggml.eot_token_id"] = ends[0]
    template = chat_template or tokenizer.config.get("chat_template")
    if isinstance(template, str):
        entries["tokenizer.chat_template"] = template
    for note in _notes(model.config):
        progress.say(note)
    with new_file(Path(path)) as aside:
        writer = GGUFWriter(aside, arch)
        for key, value in entries.items():
            _entry(writer, key, value)
        for t in tensors:
            writer.add_tensor_info(t.name, t.shape, np.dtype(np.float32), t.nbytes, GGMLQuantizationType(t.format))
        try:
            writer.write_header_to_file(aside)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            with progress.task("writing", sum(t.nbytes for t in tensors), "B") as task:
                file = writer.fout[0]
                writer.write_padding(file, file.tell())
                for t in tensors:  # written here: numpy's own writing does not say why the system refused it
                    data = encode(t.make(), t.format, t.name)
                    file.write(np.ascontiguousarray(data).data.cast("B"))
                    writer.write_padding(file, data.nbytes)
                    task.advance(data.nbytes)
        finally:
            writer.close()


def _notes(config: ModelConfig) -> list[str]:
    """Where llama.cpp computes something else than the file says."""
    found = []
    if config.family in ("mistral", "mixtral") and any(config.windows):
        window = max(filter(None, config.windows))
        found.append(f"llama.cpp knows no window for this architecture: beyond {window:,} tokens its texts differ")
    scaling = getattr(config.positions, "scaling", None)
    if scaling and scaling.kind == "yarn" and (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
        found.append(f"llama.cpp takes YaRN's bounds from its options: --yarn-beta-fast {scaling.beta_fast:g} "
                     f"--yarn-beta-slow {scaling.beta_slow:g}")
    return found


def _tensors(model: Transformer, architecture, config: dict, kind: str) -> list[_Tensor]:
    """What goes into the file: shapes now, contents when asked for. A rope scaling may be a tensor too."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    shapes = {name: p.shape for name, p in weights.items()}
    rules = {r.theirs: r for r in families.find(model.config.family).rules(model.config)}
    found = []
    for place in gguf_names.places(rules, architecture, config):
        with torch.device("meta"):
            parts = [torch.empty(published_shape(rules[n], shapes)) for n in place.published]
        shape = tuple(place.make(parts, config).shape)

        def make(place=place) -> Tensor:
            parts = [to_published(weights, [rules[n]])[n].cpu().float() for n in place.published]
            return place.make(parts, config)

        found.append(_Tensor(place.name, shape, _format(place.name, shape, kind), make))
    if isinstance(model.config.positions, Rotary):
        for name, tensor in gguf_rope.write(model.config.positions, model.config.attention.head_dim)[1].items():
            found.insert(0, _Tensor(name, tuple(tensor.shape), 0, lambda tensor=tensor: tensor))
    return found


def _format(name: str, shape: tuple[int, ...], kind: str) -> int:
    if len(shape) == 1 or name.endswith(IN_FULL):
        return 0
    if kind == "q4_0" and name in HEADS:
        kind = "q8_0"
    return FORMATS[kind] if shape[-1] % TYPES[FORMATS[kind]].weights == 0 else FORMATS["f16"]


def _settings(model: Transformer, architecture, config: dict, tensors: list[_Tensor]) -> dict:
    """The metadata below the architecture's name."""
    found = {key: config[ours] for key, ours in architecture.keys.items() if config.get(ours) is not None}
    if "attention.key_length" in found:
        found["attention.value_length"] = found["attention.key_length"]
    found["vocab_size"] = model.config.vocab_size
    if isinstance(model.config.positions, Rotary):
        rope, _ = gguf_rope.write(model.config.positions, model.config.attention.head_dim)
        found |= {f"rope.{key}": value for key, value in rope.items()}
    return found | architecture.metadata(config)


def _entry(writer, key: str, value) -> None:
    """One metadata entry, in the type that llama.cpp looks for."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def encode(tensor: Tensor, number: int, name: str) -> np.ndarray:
    """`tensor` (float32) in ggml's format `number`."""
    if number == 0:
        return tensor.contiguous().numpy()
    if number == 1:
        half = tensor.half()
        if not torch.equal(half.isfinite(), tensor.isfinite()):
            raise WorkError(f"{name} has numbers beyond float16's 65504; choose the type bf16 or f32")
        return half.contiguous().numpy()
    if number == 30:
        return tensor.bfloat16().contiguous().view(torch.int16).numpy()
    from gguf import GGMLQuantizationType, quants

    with np.errstate(all="ignore"):
        return quants.quantize(tensor.contiguous().numpy(), GGMLQuantizationType(number))
