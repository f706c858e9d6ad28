"""Which optimizer changes which weights.

AdamW (Loshchilov & Hutter 2019), with decoupled weight decay on matrices only; or Muon (Jordan et al. 2024) on the
blocks' matrices and AdamW on embeddings, head, norms and biases. Both are torch.optim's (Muon batched: `muon.py`).
"""

from torch import Tensor
from torch.optim import AdamW, Optimizer

from ..recipe import Optimizer as Settings
from .muon import Muon


def build(settings: Settings, weights: dict[str, Tensor], matrices: set[str]) -> list[Optimizer]:
    """`weights`: name → float32 master; `matrices`: the names of the blocks' matrices. Each parameter group has a
    `peak`: the learning rate that the schedule scales."""
    muon = matrices if settings.name == "muon" else set()
    groups: dict[str, dict] = {"matrices": {}, "vectors": {}, "muon": {}}
    for name, w in weights.items():
        groups["muon" if name in muon else "matrices" if w.ndim >= 2 else "vectors"][name] = w
    adamw = [
        {"params": list(groups[kind].values()), "names": list(groups[kind]), "weight_decay": decay}
        for kind, decay in (("matrices", settings.weight_decay), ("vectors", 0.0)) if groups[kind]
    ]
    made: list[Optimizer] = [AdamW(adamw, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)]
    if groups["muon"]:
        group = {"params": list(groups["muon"].values()), "names": list(groups["muon"])}
        made.append(Muon([group], lr=settings.muon_lr, momentum=settings.momentum, weight_decay=settings.weight_decay))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def set_rate(optimizers: list[Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def export_state(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All tensors the optimizers keep, named `OPTIMIZER/weight/key`."""
    state = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name, w in zip(group["names"], group["params"]):
                for key, value in optimizer.state[w].items():
                    state[f"{type(optimizer).__name__}/{name}/{key}"] = value
    return state


def import_state(optimizers: list[Optimizer], state: dict[str, Tensor]) -> None:
    """Put back what `export_state` gave."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name, w in zip(group["names"], group["params"]):
                prefix = f"{type(optimizer).__name__}/{name}/"
                found = {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}
                if found:
                    optimizer.state[w] = {k: v.clone() if k == "step" else v.to(w.device) for k, v in found.items()}
