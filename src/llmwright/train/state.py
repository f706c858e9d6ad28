"""Checkpoints: all that a training needs to go on as if it had never stopped.

`checkpoints/step-N/` holds `model/` (a model directory with the float32 master weights), `state/` (`tensors.safetensors`:
the optimizers' tensors and the random generators; `state.json`: counters, the loader's cursor, the schedule's clock) and
`checksums.json`. It is written aside, synced and renamed, so a kill at any instant leaves the last good one; a damaged
one is found by its checksums.
"""

import json
from pathlib import Path

import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..checkpoint.directory import load, write_into
from ..checkpoint.files import new_directory
from ..errors import RequestError
from ..families import write_config
from . import optimizers as optim
from .masters import Masters
from .run import Run


def save(run: Run, step: int, masters: Masters, optimizers: list, state: dict, tokenizer=None) -> Path:
    """Write checkpoint `step`. `state` is JSON: what the loop and the loader count."""
    path = run.checkpoint(step)
    with new_directory(path) as folder:
        (folder / "model").mkdir()
        (folder / "state").mkdir()
        write_into(folder / "model", masters.model.config, masters.weights, tokenizer=tokenizer)
        tensors = {f"optimizer/{name}": t.detach().cpu().contiguous() for name, t in optim.export_state(optimizers).items()}
        save_file(tensors | _generators(), folder / "state" / "tensors.safetensors")
        (folder / "state" / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        sums = {str(f.relative_to(folder)): _checksum(f) for f in sorted(folder.rglob("*")) if f.is_file()}
        (folder / "checksums.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
    return path


def newest_good(run: Run, say=print) -> int | None:
    """The newest checkpoint whose files are whole; says which damaged ones it passes over."""
    for step in reversed(run.steps()):
        problem = damage(run.checkpoint(step))
        if problem is None:
            return step
        say(f"checkpoint {run.checkpoint(step)} is damaged ({problem}): going back to the one before")
    return None


def damage(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, or None."""
    try:
        sums = json.loads((path / "checksums.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "checksums.json is missing or unreadable"
    if not isinstance(sums, dict) or not {"model/config.json", "state/state.json", "state/tensors.safetensors"} <= set(sums):
        return "checksums.json does not name every file"
    for name, wanted in sums.items():
        try:
            if _checksum(path / name) != wanted:
                return f"{name} has changed"
        except OSError:
            return f"{name} is missing or unreadable"
    return None


def restore(run: Run, step: int, masters: Masters, optimizers: list) -> dict:
    """Put checkpoint `step` back into the weights, optimizers and generators; returns its `state`."""
    path = run.checkpoint(step)
    saved = load(path / "model")
    if write_config(saved.config) != write_config(masters.model.config):
        raise RequestError(
            f"{path}: was trained with another model shape than the recipe asks for; "
            "name another run with out=…, or bring the recipe back"
        )
    with torch.no_grad():
        for name, p in saved.named_parameters():
            masters.weights[name].copy_(p)
    masters.publish()
    tensors = load_file(path / "state" / "tensors.safetensors")
    optim.import_state(
        optimizers, {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
    )
    torch.set_rng_state(tensors["generator/cpu"])
    if torch.cuda.is_available() and "generator/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator/cuda"])
    return json.loads((path / "state" / "state.json").read_text(encoding="utf-8"))


def _generators() -> dict[str, Tensor]:
    states = {"generator/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["generator/cuda"] = torch.cuda.get_rng_state()
    return states


def _checksum(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
