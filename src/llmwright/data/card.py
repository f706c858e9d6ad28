"""`data.json`: what a data directory was made from, what each step did to it, and what is in it."""

import numpy as np

from .corpus import FILTERS, Corpus
from .encode import Encoded
from .sources import Listing
from .split import PARTS

_DROPS = {*FILTERS, *(f"{name} bytes" for name in FILTERS), "documents in"}


def splits_and_tokenizer(shards: dict[str, list[dict]], tokenizer, begin_id: int) -> dict:
    """What data.json says of the shards of each part and of the tokenizer."""
    splits = {}
    for part in PARTS:
        by_source: dict[str, dict] = {}
        for shard in shards[part]:
            total = by_source.setdefault(shard["source"], {"documents": 0, "tokens": 0, "bytes": 0})
            for key in total:
                total[key] += shard[key]
        splits[part] = {**{key: sum(s[key] for s in shards[part]) for key in ("documents", "tokens", "bytes")},
                        "sources": by_source, "shards": shards[part]}
    return {
        "vocab_size": tokenizer.vocab_size,
        "bos_id": begin_id,
        "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size,
                      "fingerprint": tokenizer.fingerprint},
        "splits": splits,
    }


def card(listings: list[Listing], corpus: Corpus, rule: dict, tokenizer, begin_id: int, encoded: Encoded) -> dict:
    """The content of data.json. Nothing in it depends on the machine's speed, the time or the number of workers."""
    counts = corpus.counts
    kept = int(corpus.kept.sum())
    return {
        **splits_and_tokenizer(encoded.shards, tokenizer, begin_id),
        "sources": {x.name: {"path": x.path, "files": len(x.files), "bytes": corpus.raw_bytes[x.name],
                             "fingerprint": x.fingerprint(), "skipped": x.skipped, "skipped_files": x.skipped_names}
                    for x in listings},
        "steps": {
            "read": {"documents": counts["documents in"], "bytes": sum(corpus.raw_bytes.values())},
            "repaired": {name: n for name, n in sorted(counts.items()) if name not in _DROPS},
            "dropped": {name: {"documents": counts[name], "bytes": counts[f"{name} bytes"]} for name in FILTERS},
            "exact_duplicates": corpus.exact,
            "near_duplicates": corpus.near,
            "kept": {"documents": kept, "bytes": int(corpus.sizes[corpus.kept].sum())},
            "overlap": {**encoded.overlap, "examples": encoded.dropped},
        },
        "split": rule,
        "examples": _examples(corpus),
    }


def _examples(corpus: Corpus, n: int = 3, chars: int = 400) -> list[dict]:
    """A few documents from all over the corpus, as they are after cleaning."""
    numbers = np.flatnonzero(corpus.kept)
    wanted = np.zeros(len(corpus.kept), bool)
    wanted[numbers[np.linspace(0, len(numbers) - 1, min(n, len(numbers))).astype(int)]] = True
    out = []
    for number, data in corpus.texts(wanted):
        batch = next(b for b in corpus.spooled if b.first <= number < b.first + b.n)
        out.append({"name": corpus.names(batch)[number - batch.first], "source": batch.source,
                    "text": data[: 4 * chars].decode("utf-8", "ignore")[:chars]})
    return out
