"""Sliding windows as published configurations write them: a width, `sliding_window`, and the layers that have it,
`layer_types`, which older files leave to the family's pattern."""

from ..errors import RequestError
from ..model.config import ModelConfig
from .family import need

SLIDING, FULL = "sliding_attention", "full_attention"


def read(c: dict, pattern: list[bool], *, window: int | None = 4096) -> tuple[int | None, ...]:
    """Each layer's window, () where none has one. `pattern`: whether each layer has one where `c` does not list
    `layer_types`; `window`: the family's, where `c` says nothing."""
    types = c.get("layer_types")
    if types is None:
        types = [SLIDING if slides else FULL for slides in pattern]
    if not isinstance(types, list) or len(types) != len(pattern) or not all(t in (SLIDING, FULL) for t in types):
        raise RequestError(f"config.json: layer_types must list {SLIDING!r} or {FULL!r} for each of the {len(pattern)} "
                           "layers")
    if SLIDING not in types:
        return ()
    width = need({"sliding_window": window, **c}, "sliding_window")
    return tuple(width if t == SLIDING else None for t in types)


def write(config: ModelConfig) -> dict:
    """`sliding_window` and `layer_types`."""
    widths = set(config.windows) - {None}
    if len(widths) > 1:
        raise RequestError(f"windows of {sorted(widths)}: config.json has one width for all layers that slide")
    windows = config.windows or (None,) * config.n_layers
    return {
        "sliding_window": widths.pop() if widths else None,
        "layer_types": [SLIDING if width else FULL for width in windows],
    }
