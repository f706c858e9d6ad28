"""From tensors in files to a model: every name and shape is checked first, then memory is taken, once.

A file format offers its tensors as `Stored`: what they are is known, they are not read yet. `fill` gives each parameter
of an empty model its weights. A tensor that is what the parameter wants, on the CPU, is used where it lies (mapped from
the file); another one is converted piece by piece, and the file's pages are given back on the way. So the peak is the
model itself and little more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import families
from ..errors import RequestError
from ..families.names import from_published, published_shape
from ..model.config import ModelConfig
from ..model.build import build
from ..model.transformer import Transformer

PIECE = 8_000_000  # elements that are converted at a time


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, under its published name. `read(dtype)` gives it: mapped where the format allows, of whatever
    dtype it has there; decoded to `dtype` where it does not. `forget` gives the memory of what was mapped back. `dtype`
    is the format's own word; `floating`: whether it holds plain floats."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    floating: bool
    read: Callable[[torch.dtype], Tensor]
    forget: Callable[[], None] = lambda: None


def assemble(
    config: ModelConfig, stored: Iterable[Stored], where: Path, *, dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Transformer:
    """A model of `config` with the weights of `stored`, its tables and its blocks' matrices in `dtype`. `where`: what a
    message names.

    Raises RequestError when a weight is missing, left over, there twice, of another shape than the configuration calls
    for, or not a floating-point number; nothing was allocated then.
    """
    stored, fit = list(stored), families.find(config.family).fit
    if fit:
        config = fit(config, {tensor.name for tensor in stored})
    with torch.device("meta"):
        model = build(config)
    model.set_dtype(dtype, tables=True)
    chosen = match(config, stored, {name: p.shape for name, p in model.named_parameters()}, where)
    places = _places(model)
    for rule, tensor in chosen:
        _fill(model, places, rule, tensor, torch.device(device))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            # not empty_like: of a "meta" tensor that loads SymPy (half a second)
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    model.fill()
    return model.eval()


def match(config: ModelConfig, stored: Iterable[Stored], shapes: dict[str, torch.Size], where: Path) -> list[tuple]:
    """(rule, Stored) for every rule of the family. `shapes`: of our parameters. Raises as `assemble` says."""
    family = families.find(config.family)
    rules = {r.theirs: r for r in family.rules(config)}
    found: dict[str, Stored] = {}
    left_over = []
    for tensor in stored:
        name = family.meant(tensor.name, rules)
        if name is None:
            if not tensor.name.endswith(family.ignored) and not (config.tie_embeddings and tensor.name in family.tied):
                left_over.append(tensor.name)
            continue
        if name in found:
            raise RequestError(f"{where}: {name} is there twice, in {found[name].file.name} and {tensor.file.name}")
        if not tensor.floating:
            raise RequestError(f"{tensor.file}: {tensor.name} holds {tensor.dtype}; weights are floating-point "
                               "numbers, and quantized files of this kind are not read")
        wanted = list(published_shape(rules[name], shapes))
        if list(tensor.shape) != wanted:
            raise RequestError(
                f"{tensor.file}: {name} has shape {list(tensor.shape)}; the configuration calls for {wanted}")
        found[name] = tensor
    missing = [name for name in rules if name not in found]
    for what, names in (("missing", missing), ("not part of this architecture", left_over)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise RequestError(f"{where}: weights {what}: {', '.join(name[:120] for name in names[:3])}{more}")
    return [(rule, found[name]) for name, rule in rules.items()]


def _places(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Parameter name → the modules that hold it, several where they share it."""
    by_id: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            by_id.setdefault(id(p), []).append((module, name))
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


def _fill(model: nn.Module, places: dict, rule, stored: Stored, device: torch.device) -> None:
    wanted = {name: getattr(*places[name][0]) for name in rule.ours}
    tensor = stored.read(next(iter(wanted.values())).dtype)
    shapes = {name: weight.shape for name, weight in wanted.items()}
    mapped = False
    for name, part in from_published(tensor, rule, shapes).items():
        old = wanted[name]
        weight = part if _fits(part, old, device) else _converted(part, old.dtype, device, stored)
        mapped |= weight.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
        new = nn.Parameter(weight, old.requires_grad)
        for module, attribute in places[name]:
            setattr(module, attribute, new)
    if not mapped:
        stored.forget()


def _fits(part: Tensor, wanted: Tensor, device: torch.device) -> bool:
    return part.dtype == wanted.dtype and part.device == device and part.is_contiguous()


def _converted(part: Tensor, dtype: torch.dtype, device: torch.device, stored: Stored) -> Tensor:
    """A copy of `part` in memory of its own."""
    copy = torch.empty(part.shape, dtype=dtype, device=device)
    if part.ndim == 0 or not part.is_contiguous():
        return copy.copy_(part)
    rows = max(1, PIECE // max(1, part[0].numel())) if len(part) else 1
    for start in range(0, len(part), rows):
        copy[start : start + rows].copy_(part[start : start + rows])
        stored.forget()
    return copy
