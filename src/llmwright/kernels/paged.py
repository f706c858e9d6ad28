"""Attention to keys and values in blocks: over the native kernel (`cpu/paged_attention.cpp`), which reads them where they
lie, and through PyTorch, which gathers them first."""

import torch
from torch import Tensor

from . import native


def attend(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, rows: Tensor, positions: Tensor,
    scale: float | None, window: int | None, softcap: float | None, key_bias: Tensor | None,
) -> Tensor:
    """As `reference.paged_attention`, by the native kernel, without gradients; all but q and key_bias contiguous."""
    N, H, C = q.shape
    size, K = keys.shape[1:3]
    if q.stride(2) != 1 or q.stride(1) != C:
        q = q.contiguous()
    if key_bias is not None:
        key_bias = key_bias.float().contiguous()
    dtype = q.dtype
    out = torch.empty((N, H, C), dtype=dtype)
    native.function("paged_attention", dtype)(
        q.data_ptr(), q.stride(0), keys.data_ptr(), values.data_ptr(), tables.data_ptr(), tables.stride(0),
        rows.data_ptr(), positions.data_ptr(), N, H, K, C, size, C**-0.5 if scale is None else scale, window or 0,
        softcap or 0.0, None if key_bias is None else key_bias.data_ptr(), 0 if key_bias is None else key_bias.shape[1],
        out.data_ptr(), torch.get_num_threads(),
    )
    return out


def plain(
    run, q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, rows: Tensor, positions: Tensor, *,
    scale: float | None, window: int | None, softcap: float | None, key_bias: Tensor | None,
) -> Tensor:
    """As `reference.paged_attention`, by calls of `run`, which is `kernels.attention`: one for all texts of which there is
    one query, and one for each text of which there are several, side by side. How many there are may change the order
    of sums."""
    out, options = torch.empty_like(q), dict(scale=scale, softcap=softcap)
    size = keys.shape[1]
    single, several = _runs(rows.tolist(), positions.tolist())

    def gather(which: Tensor, end: int) -> tuple[Tensor, Tensor]:
        blocks = tables[which, : -(-end // size)].long()  # (R, blocks)
        return tuple(held[blocks].flatten(1, 2)[:, :end] for held in (keys, values))  # (R, S, K, C)

    if single:
        which = torch.tensor(single, device=q.device)
        at = positions[which]
        end = int(at.max()) + 1
        k, v = gather(rows[which], end)
        place = torch.arange(end, device=q.device)
        seen = place <= at[:, None]
        # what lies beyond a text's end may be anything, and 0 times that need not be 0
        k, v = (t.masked_fill(~seen[:, :, None, None], 0) for t in (k, v))
        if window is not None:
            seen &= place > at[:, None] - window
        mask = seen[:, None, None]  # (R, 1, 1, S)
        if key_bias is not None:
            mask = torch.where(mask, key_bias[None, :, None, :end], float("-inf"))
        out[which] = run(q[which][:, None], k, v, mask=mask, **options)[:, 0]
    for start, stop in several:
        end = int(positions[stop - 1]) + 1
        k, v = gather(rows[start : start + 1], end)
        bias = None if key_bias is None else key_bias[None, :, None, :end]
        out[start:stop] = run(q[None, start:stop], k, v, mask=bias, causal=True, window=window, **options)[0]
    return out


def _runs(rows: list[int], positions: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """The queries that have no neighbour in their text, and from where to where there are such as have."""
    ends = [n for n in range(1, len(rows)) if rows[n] != rows[n - 1] or positions[n] != positions[n - 1] + 1]
    runs = list(zip([0, *ends], [*ends, len(rows)])) if rows else []
    return [start for start, stop in runs if stop - start == 1], [run for run in runs if run[1] - run[0] > 1]
