"""Cleaning: what is repaired in a document, and which documents are not worth learning from.

Repairs: bytes that are not UTF-8, mojibake (ftfy, Speer 2019), Unicode normal form NFC, control characters, line ends.
Filters: the Gopher rules (Rae et al. 2021, table A1) that make sense for prose and source code alike. Each filter has
a name, a threshold in the recipe, and a count in the summary.
"""

import functools
import re
import unicodedata
from collections import Counter

import numpy as np

from ..recipe import Clean

# A UTF-8 sequence read as Latin-1 or Windows-1252 shows as a letter of À..ô followed by a sign of the upper half of
# those tables. Text without such a pair holds none of the mojibake that ftfy could repair at these encodings, so the
# slow repair is called for lines with a pair only.
_MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-"
    "\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)
_CONTROLS = bytes(c for c in range(32) if c not in b"\t\n") + b"\x7f"
_C1_CONTROLS = re.compile("[\u0080-\u009f]")
_NOT_ASCII_LETTERS = bytes(c for c in range(256) if not (chr(c).isascii() and chr(c).isalpha()))
_SPACES = b" \t\n\r\f\v"
_SEPARATOR = re.compile(r"^<\|endoftext\|>\n?", re.M)  # alone at a line's start, as the common story corpora have it


def decode(data: bytes, counts: Counter) -> str:
    """Text from bytes. What is not UTF-8 is repaired and counted: UTF-16 by its byte-order mark; a legacy 8-bit file
    (more bad bytes than good characters beyond ASCII) as Windows-1252; stray bytes become U+FFFD."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        counts["not UTF-8"] += 1
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16", "replace")
        text = data.decode("utf-8", "replace")
        bad = text.count("\ufffd")
        if bad > len(text) - bad - len(text.encode("ascii", "ignore")):
            text = data.decode("cp1252", "replace")
    return text.removeprefix("\ufeff")


def documents(text: str) -> list[str]:
    """A text file's documents: one, or what stands between lines that begin with `<|endoftext|>`."""
    if "<|endoftext|>" not in text:
        return [text]
    return [part for part in _SEPARATOR.split(text) if part.strip()]


def clean(text: str, rules: Clean, counts: Counter) -> list[tuple[str, bytes]]:
    """The cleaned text with its UTF-8 bytes, as a list: empty if a filter dropped it, several if it was cut.

    `counts` gets each repair and each filter's drops, in documents and (key `name bytes`) UTF-8 bytes.
    """
    text, data = repair(text, rules, counts)
    why = unfit(text, data, rules)
    if why:
        counts[why] += 1
        counts[f"{why} bytes"] += len(data)
        return []
    if rules.max_chars and len(text) > rules.max_chars:
        counts["max_chars"] += 1
        parts = [text[i : i + rules.max_chars] for i in range(0, len(text), rules.max_chars)]
        return [(part, part.encode()) for part in parts]
    return [(text, data)]


def repair(text: str, rules: Clean, counts: Counter) -> tuple[str, bytes]:
    """Line ends, Unicode and control characters put right."""
    if "\r" in text:
        counts["line ends"] += 1
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _repair_unicode(text, rules, counts)
    data = text.encode()
    if rules.control_characters:
        kept = data.translate(None, _CONTROLS)  # single bytes in UTF-8, and never part of another character
        if len(kept) != len(data):
            counts["control characters"] += 1
            data, text = kept, kept.decode()
    return text, data


def _repair_unicode(text: str, rules: Clean, counts: Counter) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a JSON escape
        counts["surrogates"] += 1
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if rules.unicode:
        if _MOJIBAKE.search(text):
            fixed = "\n".join(_fix_line(line) if _MOJIBAKE.search(line) else line for line in text.split("\n"))
            counts["mojibake"] += fixed != text
            text = fixed
        if not unicodedata.is_normalized("NFC", text):
            counts["not NFC"] += 1
            text = unicodedata.normalize("NFC", text)
    if rules.control_characters and _C1_CONTROLS.search(text):
        counts["control characters"] += 1
        text = _C1_CONTROLS.sub("", text)
    return text


def _fix_line(line: str) -> str:
    import ftfy

    return ftfy.fix_encoding(line)


def unfit(text: str, data: bytes, rules: Clean) -> str | None:
    """The name of the first filter that `text` (UTF-8 in `data`) fails, or None."""
    if len(text) < rules.min_chars or not text or text.isspace():
        return "min_chars"
    if not rules.quality:
        return None
    lines = text.split("\n")
    if 0 < rules.max_line_chars < len(text) and max(map(len, lines)) > rules.max_line_chars:
        return "max_line_chars"
    if rules.min_letter_share and letter_share(text, data) < rules.min_letter_share:
        return "min_letter_share"
    if rules.max_repeated_line_share < 1 and len(lines) > 2:
        lines = [line for line in map(str.strip, lines) if line]
        if 1 - len(set(lines)) / len(lines) > rules.max_repeated_line_share:
            return "max_repeated_line_share"
    return None


def letter_share(text: str, data: bytes) -> float:
    """Letters (with the marks that belong to them) among the characters that are no space."""
    letters = len(data.translate(None, _NOT_ASCII_LETTERS))
    others = len(text) - len(data) + len(data.translate(None, _SPACES))
    if len(text) != len(data):
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        codes = codes[codes > 127]
        letters += int(_letter_table()[np.minimum(codes, len(_letter_table()) - 1)].sum())
        letters += int(((codes >= 0xE0100) & (codes <= 0xE01EF)).sum())  # variation selectors
    return letters / max(others, 1)


@functools.cache
def _letter_table() -> np.ndarray:
    """Whether a code point is a letter or a mark; planes 0 to 3 hold all of them but the variation selectors."""
    return np.array([unicodedata.category(chr(c))[0] in "LM" for c in range(0x40000)] + [False])
