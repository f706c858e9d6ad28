"""Which tokens go on with the word before them.

A WordPiece vocabulary marks them (`##ing`). Elsewhere a word is a run of letters, of digits or of other signs, the space
before it included: what the usual pre-tokenizers cut text into, told from the tokens alone. Where a script writes no
spaces (Chinese, Japanese, Thai), a run of letters is no word, and each token is one, marked or not, as in BERT's treatment
of Chinese.
"""

import unicodedata

import numpy as np

from . import bytelevel

NONE, LETTER, DIGIT, SIGN, INSIDE = range(5)  # INSIDE: a character's later bytes, which belong to the token before
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x312F), (0x31A0, 0x31FF),
             (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def heads_and_tails(tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """For each id what its token begins and ends with, (V,) int8 each; see `goes_on`."""
    heads, tails = (np.zeros(tokenizer.vocab_size, np.int8) for _ in range(2))
    prefix = tokenizer.tree["model"].get("continuing_subword_prefix")
    specials = set(tokenizer.special_tokens.values())
    for i in range(tokenizer.vocab_size):
        if i in specials or not tokenizer.token(i):
            continue
        if prefix:
            heads[i], tails[i] = _inside(tokenizer, tokenizer.token(i), prefix), LETTER
        else:
            heads[i], tails[i] = _ends(tokenizer.token_bytes(i))
    return heads, tails


def goes_on(heads: np.ndarray, tails: np.ndarray, before: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Whether each id of `token` goes on with the word of the id `before` it; bool, the same shape."""
    head = heads[token]
    return (head == INSIDE) | ((head != NONE) & (head == tails[before]))


def _inside(tokenizer, token: str, prefix: str) -> int:
    """INSIDE for a token that is marked as going on with a word, unless it begins with a script that has no spaces."""
    text = token.removeprefix(prefix)
    if text == token:
        return NONE
    data = bytes(bytelevel.BYTE[c] for c in text) if tokenizer.byte_level else text.encode()
    return NONE if data and _ends(data)[0] == NONE else INSIDE


def _ends(data: bytes) -> tuple[int, int]:
    """The kinds of the first and the last character in these bytes, which may begin or end within one."""
    lead = next((i for i, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    head = INSIDE if lead else _kind(_characters(data)[0])
    return head, _kind(_characters(data[lead:])[-1]) if lead < len(data) else LETTER


def _characters(data: bytes) -> str:
    """The text of `data`; of a last character that is cut off, one from the same part of Unicode."""
    for filler in (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"):
        try:
            return (data + filler).decode()
        except UnicodeDecodeError:
            pass
    return data.decode("utf-8", "replace")


def _kind(character: str) -> int:
    group, point = unicodedata.category(character)[0], ord(character)
    if character.isspace() or any(low <= point <= high for low, high in _UNSPACED):
        return NONE
    return LETTER if group in "LM" else DIGIT if group == "N" else SIGN
