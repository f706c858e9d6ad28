"""Rows of text with tokens hidden: what an encoder learns from (Devlin et al. 2019, section 3.1).

Of a row's tokens a share is chosen, whole words at a time where asked for; of the chosen ones 80 % become the mask token,
10 % any other token, 10 % stay as they are, and all are to be predicted. What is random comes from the batch's own draw
by our own arithmetic (`order.mix`), so a batch is the same again after a resume, on any machine, for ever.
"""

import numpy as np
import torch

from ..errors import RequestError
from ..tokens.whole_words import goes_on, heads_and_tails
from .batch import Batch, assemble
from .order import key, mix
from .shards import Split


class Masking:
    """Makes a batch of rows into one of masked rows. `share`: of a row's tokens; special tokens are never chosen.

    Raises RequestError for a tokenizer without a mask token.
    """

    def __init__(self, tokenizer, eot_id: int, share: float = 0.15, whole_words: bool = False):
        if tokenizer.mask_id is None:
            raise RequestError(
                "train.objective masked needs a tokenizer with a mask token, and the data was prepared with one that has none: "
                "prepare it again (llmwright prepare --objective masked)"
            )
        self.mask_id, self.eot_id, self.share = tokenizer.mask_id, eot_id, share
        specials = list(tokenizer.special_tokens.values())
        self.ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), specials)  # what may be chosen, or put in
        self.special = np.zeros(tokenizer.vocab_size, bool)
        self.special[specials] = True
        self.words = heads_and_tails(tokenizer) if whole_words else None

    def row_tokens(self, context: int) -> int:
        """Tokens of text in a row of `context`."""
        return context

    def __call__(self, split: Split, context: int, n_pieces, start, length, draw: int) -> Batch:
        rows = assemble(split, self.eot_id, context, n_pieces, start, length)
        ids, real = rows.input_ids.numpy(), rows.targets.numpy() >= 0  # padding has no next token
        chosen = self.choose(ids, real & ~self.special[ids], rows.positions.numpy() == 0, draw)
        fate = _uniform(ids.shape, key(draw, 1))
        others = self.ordinary[(mix(np.arange(ids.size, dtype=np.uint64), key(draw, 2)) % len(self.ordinary)).reshape(ids.shape)]
        shown = np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, others, ids))
        segments = rows.segments
        if segments is None and not real.all():  # both ways, the padding behind would be seen
            segments = torch.from_numpy((~real).astype(np.int32))
        return Batch(
            torch.from_numpy(np.where(chosen, shown, ids)), torch.from_numpy(np.where(chosen, ids, -100)), rows.positions,
            segments, int(chosen.sum()), int(real.sum()),
        )

    def choose(self, ids: np.ndarray, may: np.ndarray, begins: np.ndarray, draw: int) -> np.ndarray:
        """Which tokens of each row to hide: (B, T) bool, among those that `may` be; `begins`: where a piece begins.

        A row's words are taken in a random order until the share is reached, as nearly as whole words can, and at least
        one. Without `whole_words` each token is a word.
        """
        B, T = ids.shape
        if self.words is None:
            first = np.ones((B, T), bool)
        else:
            first = begins.copy()
            first[:, 1:] |= ~goes_on(*self.words, ids[:, :-1], ids[:, 1:])
            first[:, 0] = True
        word = first.reshape(-1).cumsum() - 1  # of each token, over all rows
        size = np.bincount(word, weights=may.reshape(-1)).astype(np.int64)
        row = np.flatnonzero(first) // T
        order = np.lexsort((mix(np.arange(len(size), dtype=np.uint64), draw), row))
        before = size[order].cumsum() - size[order]
        row_begins = np.searchsorted(row[order], np.arange(B))
        before -= before[row_begins][row[order]]
        budget = self.share * may.sum(1)[row[order]]
        taken = np.empty(len(size), bool)
        taken[order] = (before + size[order] / 2 <= budget) | (before == 0)
        return taken[word].reshape(B, T) & may


def _uniform(shape: tuple[int, ...], draw: int) -> np.ndarray:
    """Numbers in [0, 1)."""
    return (mix(np.arange(np.prod(shape), dtype=np.uint64), draw) >> np.uint64(11)).reshape(shape) / 2.0**53
