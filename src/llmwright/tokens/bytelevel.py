"""The byte-level alphabet: every byte written as one printable character (GPT-2, Radford et al. 2019, section 2.2).

A tokenizer.json stores token text as Unicode strings, and a token may be any run of bytes, valid UTF-8 or not. GPT-2's
answer is a fixed table: a printable Latin-1 byte stands for itself, the others for the characters from U+0100 on, so
a space is written Ġ and a newline Ċ. All byte-level tokenizers published since use the same table.
"""

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def _table() -> dict[int, str]:
    others = (byte for byte in range(256) if byte not in PRINTABLE)
    return {**{byte: chr(byte) for byte in PRINTABLE}, **{byte: chr(0x100 + n) for n, byte in enumerate(others)}}


CHARACTER = _table()  # byte -> its character
BYTE = {character: byte for byte, character in CHARACTER.items()}

# UTF-8 never contains the other 13 (RFC 3629, section 3), so a vocabulary needs no row for them.
UTF8_LEADS = [*range(0x80), *range(0xC2, 0xF5)]
UTF8_BYTES = [*range(0xC0), *range(0xC2, 0xF5)]


def to_bytes(token: str) -> bytes:
    """The bytes a token's text stands for. KeyError if it is not written in the byte-level alphabet."""
    return bytes(map(BYTE.__getitem__, token))


def to_token(data: bytes) -> str:
    """`data` written in the byte-level alphabet."""
    return "".join(map(CHARACTER.__getitem__, data))
