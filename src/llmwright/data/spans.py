"""Rows of text with spans taken out, and the spans as what is to be written (Raffel et al. 2020, section 3.1.4).

    thank you for inviting me to your party last week
    → source  thank you <extra_id_0> me to your party <extra_id_1> week </s>
      target  <extra_id_0> for inviting <extra_id_1> last </s>

Each row is cut from just so much text that its source fills the row (`row_tokens`), so nothing is padded but where the
text ends. As there, texts that share a row follow each other without a mark. Which spans go comes from the batch's own
draw by our own arithmetic (`order.mix`): the same again after a resume.
"""

import numpy as np

from ..errors import RequestError
from .batch import PairBatch, pair_batch
from .order import key, mix
from .shards import Split


class SpanCorruption:
    """Makes a batch of rows into sources and targets. `share` of the tokens go, in spans of `mean_length` on average.

    `start_id` begins what a decoder writes. Raises RequestError for a tokenizer without sentinels.
    """

    def __init__(self, tokenizer, start_id: int, share: float = 0.15, mean_length: float = 3.0):
        if not tokenizer.sentinel_ids:
            raise RequestError(
                "train.objective span needs a tokenizer with sentinels (<extra_id_0>, …), and the data was prepared with one "
                "that has none: prepare it again (llmwright prepare --objective span)"
            )
        self.sentinels = np.array(tokenizer.sentinel_ids)
        self.eos_id = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.bos_id
        self.start_id, self.pad_id = start_id, start_id if tokenizer.pad_id is None else tokenizer.pad_id
        self.share, self.mean_length = share, mean_length
        self.special = np.zeros(tokenizer.vocab_size, bool)
        self.special[list(tokenizer.special_tokens.values())] = True

    def sizes(self, tokens: int) -> tuple[int, int]:
        """(tokens that go, spans) of a text of so many tokens, at least one of each, and one token stays."""
        gone = min(max(round(tokens * self.share), 1), tokens - 1)
        return gone, min(max(round(gone / self.mean_length), 1), gone, tokens - gone)

    def row_tokens(self, context: int) -> int:
        """Tokens of text whose source, with a sentinel for each span and the end token, just fits `context`."""
        tokens = context  # a sentinel stands for a token or more: the source is never longer, but for the end token
        while tokens > 2 and self._source(tokens) > context:
            tokens -= 1
        while self._source(tokens + 1) <= context:
            tokens += 1
        _, spans = self.sizes(tokens)
        if spans > len(self.sentinels):
            raise RequestError(
                f"rows of {context} tokens take {spans} sentinels, and the tokenizer has {len(self.sentinels)}: a shorter "
                "train.context, a longer train.spans.mean_length, or more tokenizer.sentinels"
            )
        return tokens

    def _source(self, tokens: int) -> int:
        gone, spans = self.sizes(tokens)
        return tokens - gone + spans + 1

    def __call__(self, split: Split, context: int, n_pieces, start, length, draw: int) -> PairBatch:
        first = np.cumsum(length) - length
        ids = split.take(np.repeat(start - first, length) + np.arange(int(length.sum())))
        row_ends = np.cumsum(length)[np.cumsum(n_pieces) - 1]
        rows = [row[~self.special[row]] for row in np.split(ids, row_ends[:-1])]
        pairs = [self.corrupt(row, key(draw, i)) for i, row in enumerate(rows) if len(row) > 1]
        if not pairs:  # texts of one token: there is nothing to take out of them
            pairs = [(np.array([self.eos_id]), np.array([self.eos_id]))]
        return pair_batch([source for source, _ in pairs], [target for _, target in pairs], self.start_id, self.pad_id)

    def corrupt(self, ids: np.ndarray, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, target) of a text of at least two tokens, ends included. A text begins with tokens that stay and ends with
        a span, as in the paper's code."""
        gone, spans = self.sizes(len(ids))
        lengths = np.empty(2 * spans, np.int64)
        lengths[0::2] = _parts(len(ids) - gone, spans, key(draw, 0))
        lengths[1::2] = _parts(gone, spans, key(draw, 1))
        runs = np.split(ids, np.cumsum(lengths)[:-1])  # stays, goes, stays, goes, …
        source, target = [], []
        for sentinel, stays, goes in zip(self.sentinels[:spans, None], runs[0::2], runs[1::2]):
            source += [stays, sentinel]
            target += [sentinel, goes]
        end = [[self.eos_id]]
        return np.concatenate(source + end), np.concatenate(target + end)


def _parts(total: int, n: int, draw: int) -> np.ndarray:
    """`n` random lengths from 1 up that add to `total`: every way to cut is as likely."""
    borders = 1 + np.sort(np.argsort(mix(np.arange(total - 1, dtype=np.uint64), draw), kind="stable")[: n - 1])
    return np.diff(np.concatenate([[0], borders, [total]]))
