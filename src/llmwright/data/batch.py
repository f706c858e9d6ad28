"""A batch of rows, built from their pieces by a few vectorized gathers, whatever the number of documents in it."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from .shards import Split


@dataclass
class Batch:
    """B rows of T tokens.

    `input_ids`, `targets` (-100: nothing to predict) and `positions` (from 0 in each piece) are (B, T) int64.
    `segments` (B, T) int32 numbers the pieces of a row, the padding last: a token attends only within its segment.
    It is None when no row holds more than one piece: plain causal attention is then right, since padding is at the
    end. `n_targets` counts the valid targets.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor | None
    n_targets: int

    def to(self, device) -> "Batch":
        def move(tensor):
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return replace(self, input_ids=move(self.input_ids), targets=move(self.targets),
                       positions=move(self.positions), segments=move(self.segments))


def assemble(split: Split, eot_id: int, context: int, n_pieces: np.ndarray, start: np.ndarray, length: np.ndarray,
             skip: np.ndarray | None = None) -> Batch:
    """Rows from their pieces, in order: `n_pieces` (B,) of each row, then first address, length and number of leading
    targets not to score of each piece (P,)."""
    rows, total = len(n_pieces), int(length.sum())
    row = np.repeat(np.arange(rows), n_pieces)
    before = np.cumsum(length) - length  # tokens before each piece, of the whole batch
    first_piece = np.cumsum(n_pieces) - n_pieces
    fill = np.add.reduceat(length, first_piece)
    place = row * context + before - before[first_piece][row]  # of each piece, in the (B·T) grid
    within = np.arange(total) - np.repeat(before, length)
    to = np.repeat(place, length) + within

    tokens = split.take(np.repeat(start, length) + within)
    following = np.empty_like(tokens)
    following[:-1] = tokens[1:]
    following[before + length - 1] = split.take(start + length)  # the token after a piece is stored too, or the eot
    if skip is not None:
        following[within < np.repeat(skip, length)] = -100

    input_ids, targets = np.full(rows * context, eot_id), np.full(rows * context, -100)
    positions = np.maximum(np.arange(context) - fill[:, None], 0).reshape(-1)
    input_ids[to], targets[to], positions[to] = tokens, following, within
    segments = None
    if n_pieces.max() > 1:
        segments = np.repeat(n_pieces.astype(np.int32), context)  # the padding's number, where nothing else goes
        segments[to] = np.repeat(np.arange(len(row)) - first_piece[row], length)
        segments = torch.from_numpy(segments.reshape(rows, context))
    grid = [torch.from_numpy(part.reshape(rows, context)) for part in (input_ids, targets, positions)]
    return Batch(*grid, segments, total if skip is None else int((targets >= 0).sum()))
