"""Small data directories in which every text token has an id of its own, so that a row tells where it comes from."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from llmwright.data.shards import DataDir, ShardWriter, Split

VOCAB = 1 << 20
EOT = 0


def make_split(directory: Path, lengths: dict[str, list[int]], shard_tokens: int = 10**6) -> Split:
    """A train split of documents of these stored lengths (the eot counted); text tokens are 1, 2, 3, … throughout."""
    shards, next_id = [], 1
    for source, sizes in lengths.items():
        writer = ShardWriter(directory / "train", source, VOCAB, shard_tokens)
        for size in sizes:
            writer.add(np.array([EOT, *range(next_id, next_id + size - 1)]), 3 * (size - 1))
            next_id += size - 1
        shards += writer.close()
    card = {"vocab_size": VOCAB, "bos_id": EOT, "splits": {"train": {"shards": shards}}}
    (directory / "data.json").write_text(json.dumps(card))
    return DataDir.open(directory).split("train")


def all_pairs(split: Split) -> Counter:
    """What must be learned: (token, next token) of every document, its end included."""
    pairs = Counter()
    for name, source in split.sources.items():
        for i in range(source.n_documents):
            document = split.document(name, i).tolist()
            pairs.update(zip(document, [*document[1:], EOT]))
    return pairs


def batch_pairs(batch) -> Counter:
    """The (input, target) pairs that a batch trains on."""
    valid = batch.targets >= 0
    assert int(valid.sum()) == batch.n_targets
    return Counter(zip(batch.input_ids[valid].tolist(), batch.targets[valid].tolist()))


def same(one, two) -> bool:
    """Whether two batches are equal in every field."""
    fields = [(getattr(one, name), getattr(two, name)) for name in ("input_ids", "targets", "positions")]
    if (one.segments is None) != (two.segments is None) or one.n_targets != two.n_targets:
        return False
    if one.segments is not None:
        fields.append((one.segments, two.segments))
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in fields)
