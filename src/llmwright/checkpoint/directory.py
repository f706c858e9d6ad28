"""Model directories: Hugging Face's own layout, read and written.

`config.json`, `model.safetensors` (in shards with an index above 5 GB), `generation_config.json`, and the tokenizer's
files. What is saved here loads in transformers, and what they publish loads here, when the family is one of ours.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import families
from ..errors import RequestError
from ..families.family import write_special_tokens
from ..families.names import to_published
from ..model.config import ModelConfig
from ..model.transformer import Transformer
from . import pickles, safetensors_file, sentence
from .files import new_directory
from .weights import Stored, assemble

SHARD_BYTES = 5_000_000_000


def save(
    model: Transformer, path: Path | str, *, tokenizer=None, weights: dict[str, Tensor] | None = None,
    generation: dict | None = None,
) -> None:
    """Write `model` (and the tokenizer's files) as a model directory, atomically; an older one there is replaced.

    `weights`: our names → tensors to write instead of the model's own (a run's float32 master weights). `generation`: as
    for `write_into`.
    """
    if weights is None:
        model.check_whole()
    with new_directory(Path(path)) as folder:
        held = weights or dict(model.named_parameters())
        write_into(folder, model.config, held, tokenizer=tokenizer, generation=generation)


def write_into(
    folder: Path, config: ModelConfig, weights: dict[str, Tensor], *, tokenizer=None, generation: dict | None = None
) -> None:
    """The files of a model directory, into `folder`. `generation`: what its generation_config.json says beside what
    follows from the configuration."""
    published = {
        name: tensor.detach().cpu()
        for name, tensor in to_published(weights, families.find(config.family).rules(config)).items()
    }
    dtype = str(next(iter(published.values())).dtype).removeprefix("torch.")
    _dump(folder / "config.json", {**families.write_config(config), "dtype": dtype, "use_cache": True})
    ids = {key: value for key, value in write_special_tokens(config).items() if value is not None}
    if config.kind == "encoder-decoder":  # where a text begins, and a limit beyond the 20 tokens that transformers takes
        ids |= {"decoder_start_token_id": config.special("start"), "max_length": config.context}
    if config.kind != "encoder":
        _dump(folder / "generation_config.json", {"_from_model_config": not generation, **ids, **(generation or {})})
    if config.sentence:
        sentence.write(folder, config)
    _write_weights(folder, published)
    if tokenizer is not None:
        tokenizer.save(folder)


def load(path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """The model in the directory `path`, its tables and matrices in `dtype`.

    Raises RequestError when a file is missing or damaged, the family is not supported, or weights are missing,
    left over or of another shape than the configuration says.
    """
    path = Path(path).expanduser()
    config = load_config(path)
    return assemble(config, stored_weights(path), path, dtype=dtype, device=device)


def load_config(path: Path) -> ModelConfig:
    file, found = path / "config.json", None
    if not path.is_dir():
        raise RequestError(f"{path}: no such model directory")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return sentence.read(path, families.read_config(found))
    except FileNotFoundError:
        raise RequestError(f"{path}: not a model directory: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file}: not valid JSON: {_first_line(error)}") from None
    except RequestError as error:
        own = "; the code that it brings (auto_map) is never run" if isinstance(found, dict) and "auto_map" in found else ""
        raise RequestError(f"{path}: {error}{own}") from None


def _write_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    shards, size = [{}], 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    index = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index.update({name: file for name in shard})
    total = sum(t.nbytes for t in tensors.values())
    _dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def stored_weights(path: Path) -> list[Stored]:
    """The tensors of a model directory's files, not read yet: safetensors, or PyTorch's own files where there are none.
    Raises RequestError that names the file at fault."""
    for name, read in (("model.safetensors", safetensors_file.stored), ("pytorch_model.bin", pickles.stored)):
        index = path / f"{name}.index.json"
        if index.exists():
            return _shards(index, read)
        if (path / name).exists():
            return read(path / name)
    raise RequestError(f"{path}: model.safetensors is missing, and so are its shards and pytorch_model.bin")


def _shards(index: Path, read) -> list[Stored]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        # in this directory, whatever the index says
        where = {name: index.parent / Path(file).name for name, file in weight_map.items()}
    except (ValueError, LookupError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise RequestError(f"{index}: not an index of shards: {_first_line(error)}") from None
    tensors = []
    for file in sorted(set(where.values())):
        if not file.is_file():
            raise RequestError(f"{index.parent}: {file.name} is missing; {index.name} names it")
        tensors += read(file)
    held = {(tensor.name, tensor.file) for tensor in tensors}
    for name, file in where.items():
        if (name, file) not in held:
            raise RequestError(f"{file}: {name[:120]} is missing; {index.name} says that it is in this file")
    return tensors


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".splitlines()[0]


def _dump(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
