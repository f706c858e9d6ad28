"""Batches: rows of text, built from their pieces by a few vectorized gathers whatever the number of documents in them,
and pairs of texts.

Whatever a batch holds, the loop needs three things of it: `to(device)`, `n_targets` (what its loss is summed over) and
`n_tokens` (what the model reads, padding left out: what speed counts).
"""

from dataclasses import dataclass, fields, replace

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
    n_inputs: int | None = None  # tokens that are no padding, where not each of them has a target

    @property
    def n_tokens(self) -> int:
        return self.n_targets if self.n_inputs is None else self.n_inputs

    def to(self, device) -> "Batch":
        return _moved(self, device)


@dataclass
class PairBatch:
    """B pairs for an encoder-decoder: what it reads, and what it is to write.

    `source_ids` (B, S) int64 end with the end token; `source_mask` (B, S) bool is False on padding, or None where there
    is none. `targets` (B, T) int64 end with the end token and are -100 after it; `input_ids` (B, T) int64 are the
    targets shifted right, behind the start token. `n_targets` counts the valid targets.
    """

    source_ids: torch.Tensor
    source_mask: torch.Tensor | None
    input_ids: torch.Tensor
    targets: torch.Tensor
    n_targets: int

    @property
    def n_tokens(self) -> int:
        read = self.source_ids.numel() if self.source_mask is None else int(self.source_mask.sum())
        return read + self.n_targets

    def to(self, device) -> "PairBatch":
        return _moved(self, device)


def _moved(batch, device):
    """The same batch with its tensors on `device`."""
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()
                             if isinstance(tensor, torch.Tensor)})


def pair_batch(sources: list[np.ndarray], targets: list[np.ndarray], start_id: int, pad_id: int) -> PairBatch:
    """`sources` and `targets`: ids of each text, their end tokens included. Padding goes behind."""
    source_ids, written = _padded(sources, pad_id), _padded(targets, -100)
    input_ids = np.full(written.shape, pad_id)
    input_ids[:, 0] = start_id
    input_ids[:, 1:] = np.where(written[:, :-1] >= 0, written[:, :-1], pad_id)
    lengths = np.array([len(ids) for ids in sources])
    mask = None
    if lengths.min() < lengths.max():
        mask = torch.from_numpy(np.arange(source_ids.shape[1]) < lengths[:, None])
    n_targets = sum(len(ids) for ids in targets)
    return PairBatch(torch.from_numpy(source_ids), mask, torch.from_numpy(input_ids), torch.from_numpy(written), n_targets)


def _padded(rows: list[np.ndarray], filler: int) -> np.ndarray:
    """(B, longest) int64."""
    out = np.full((len(rows), max(map(len, rows))), filler)
    for place, ids in zip(out, rows):
        place[: len(ids)] = ids
    return out


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


class NextTokens:
    """What `RowLoader` makes batches with: here, rows whose targets are the next tokens. `draw` is a number that differs
    from batch to batch and is the same again after a resume."""

    def __init__(self, eot_id: int):
        self.eot_id = eot_id

    def row_tokens(self, context: int) -> int:
        """Tokens of text in a row of `context`."""
        return context

    def __call__(self, split: Split, context: int, n_pieces: np.ndarray, start: np.ndarray, length: np.ndarray,
                 draw: int) -> Batch:
        """Arguments as in `assemble`."""
        return assemble(split, self.eot_id, context, n_pieces, start, length)
