"""Model directories: Hugging Face's own layout, read and written.

`config.json`, `model.safetensors` (in shards with an index above 5 GB), `generation_config.json`, and the tokenizer's
files. What is saved here loads in transformers, and what they publish loads here, when the family is one of ours.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import families
from ..errors import RequestError
from ..families.names import from_published, to_published
from ..model.config import ModelConfig
from ..model.build import build
from ..model.transformer import Transformer
from .files import new_directory

SHARD_BYTES = 5_000_000_000


def save(model: Transformer, path: Path | str, *, tokenizer=None, weights: dict[str, Tensor] | None = None) -> None:
    """Write `model` (and the tokenizer's files) as a model directory, atomically; an older one there is replaced.

    `weights`: our names → tensors to write instead of the model's own (a run's float32 master weights).
    """
    with new_directory(Path(path)) as folder:
        write_into(folder, model.config, weights or dict(model.named_parameters()), tokenizer=tokenizer)


def write_into(folder: Path, config: ModelConfig, weights: dict[str, Tensor], *, tokenizer=None) -> None:
    """The files of a model directory, into `folder`."""
    published = {
        name: tensor.detach().cpu()
        for name, tensor in to_published(weights, families.find(config.family).rules(config)).items()
    }
    dtype = str(next(iter(published.values())).dtype).removeprefix("torch.")
    _dump(folder / "config.json", {**families.write_config(config), "dtype": dtype, "use_cache": True})
    ids = {f"{n}_token_id": config.special(n) for n in ("bos", "eos", "pad") if config.special(n) is not None}
    _dump(folder / "generation_config.json", {"_from_model_config": True, **ids})
    _write_weights(folder, published)
    if tokenizer is not None:
        tokenizer.save(folder)


def load(path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """The model in the directory `path`, its blocks' matrices in `dtype`.

    Raises RequestError when a file is missing or damaged, the family is not supported, or weights are missing,
    left over or of another shape than the configuration says.
    """
    path = Path(path).expanduser()
    config = load_config(path)
    with torch.device("meta"):
        model = build(config)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    weights = _read_weights(path, config, shapes)
    model = model.to_empty(device=device)
    model.set_dtype(dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights.pop(name))
    model.fill()
    return model.eval()


def load_config(path: Path) -> ModelConfig:
    file = path / "config.json"
    if not path.is_dir():
        raise RequestError(f"{path}: no such model directory")
    try:
        return families.read_config(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError(f"{path}: not a model directory: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file}: not valid JSON: {_first_line(error)}") from None
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


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


def _read_weights(path: Path, config: ModelConfig, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Our names → tensors mapped from the files."""
    family = families.find(config.family)
    rules = {r.theirs: r for r in family.rules(config)}
    weights: dict[str, Tensor] = {}
    left_over = []
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():
                    known = name if name in rules else family.prefix + name
                    if known in rules:
                        tensor = tensors.get_tensor(name)
                        if not tensor.is_floating_point():
                            raise ValueError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}; weights are "
                                             "floating-point numbers, and quantized files are not read")
                        weights |= from_published(tensor, rules[known], shapes)
                    elif not name.endswith(family.ignored) and not (config.tie_embeddings and name in family.tied):
                        left_over.append(name)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{file}: not a readable safetensors file: {_first_line(error)}") from None
        except ValueError as error:
            raise RequestError(f"{file}: {error}") from None
    missing = [r.theirs for r in rules.values() if r.ours[0] not in weights]
    for what, names in (("missing", missing), ("not part of this architecture", left_over)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise RequestError(f"{path}: weights {what}: {', '.join(names[:3])}{more}")
    return weights


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            files = [path / Path(name).name for name in names]  # in this directory, whatever the index says
        except (ValueError, LookupError, AttributeError, TypeError, OSError) as error:
            raise RequestError(f"{index}: not an index of shards: {_first_line(error)}") from None
    else:
        files = [path / "model.safetensors"]
    for file in files:
        if not file.exists():
            raise RequestError(f"{path}: {file.name} is missing; weights are read from safetensors files only")
    return files


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".splitlines()[0]


def _dump(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
