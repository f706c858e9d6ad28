"""What a tokenizer is, in figures: its vocabulary, and how well it fits a text."""

from collections.abc import Iterable

import numpy as np

from .tokenizer import Tokenizer


def statistics(tokenizer: Tokenizer, texts: Iterable[str] | None = None, top: int = 20) -> dict:
    """Figures for `llmwright info` and the report, ready for JSON.

    Always: kind, vocab_size, fingerprint, specials {token: id}, bos_id, eos_id, pad_id, unk_id; longest, the `top`
    longest tokens as {id, text, bytes}; lengths {bytes: tokens of that length}. Special tokens count in neither.

    With texts: tokens, bytes, characters, bytes_per_token, characters_per_token; used_share, the part of the ordinary
    vocabulary that occurs; unknown, how many tokens are unk; frequent, the `top` most frequent tokens as
    {id, text, count}.
    """
    special = set(tokenizer.special_tokens.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special and tokenizer.token(i)]
    length = {i: len(tokenizer.token_bytes(i)) for i in ordinary}
    found = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "specials": dict(tokenizer.special_tokens),
        **{f"{role}_id": getattr(tokenizer, f"{role}_id") for role in ("bos", "eos", "pad", "unk")},
        "longest": [{"id": i, "text": visible(tokenizer, i), "bytes": length[i]}
                    for i in sorted(ordinary, key=lambda i: (-length[i], i))[:top]],
        "lengths": {n: int(count) for n, count in enumerate(np.bincount(list(length.values()) or [0])) if count and n},
    }
    return found if texts is None else {**found, **_fit(tokenizer, texts, ordinary, top)}


def _fit(tokenizer: Tokenizer, texts: Iterable[str], ordinary: list[int], top: int) -> dict:
    counts, n_bytes, characters = np.zeros(tokenizer.vocab_size, np.int64), 0, 0
    for text in texts:
        counts += np.bincount(tokenizer.encode_batch([text])[0], minlength=tokenizer.vocab_size)
        n_bytes += len(text.encode("utf-8", "replace"))
        characters += len(text)
    tokens = int(counts.sum())
    order = np.argsort(-counts, kind="stable")[:top].tolist()
    return {
        "tokens": tokens,
        "bytes": n_bytes,
        "characters": characters,
        "bytes_per_token": n_bytes / tokens if tokens else None,
        "characters_per_token": characters / tokens if tokens else None,
        "used_share": float((counts[ordinary] > 0).mean()) if ordinary else None,
        "unknown": int(counts[tokenizer.unk_id]) if tokenizer.unk_id is not None else 0,
        "frequent": [{"id": i, "text": visible(tokenizer, i), "count": int(counts[i])} for i in order if counts[i]],
    }


def visible(tokenizer: Tokenizer, i: int) -> str:
    """The token's text on one line: `\\n` and other control characters escaped, bytes that are no character as
    `\\xe2`."""
    text = tokenizer.token_bytes(i).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
