"""A safetensors file as it lies on the disk: a header that says where each tensor is, then the tensors' bytes.

    8 bytes: the header's length, little-endian
    the header: JSON, {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {…}}
    the tensors, one after the other, in no order but without a hole

(the format's own page: github.com/huggingface/safetensors, "Format"). Everything the header says is held against the
file's size before memory is taken for any of it, so a damaged or hostile file ends in one line. The tensors are mapped,
not read: they cost memory when they are touched, and `forget` gives it back.
"""

import json
import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import RequestError
from .weights import Stored

LONGEST_HEADER = 30_000_000  # bytes: 200,000 tensors; the format itself allows 100 MB
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Entry:
    """Where a tensor is: bytes `begin` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """Name → where its tensor is. Raises RequestError when the file is not what its header says."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            if len(start) < 8:
                raise _Wrong(f"it has {len(start)} bytes; a header's length alone takes 8")
            (length,) = struct.unpack("<Q", start)
            if length > size - 8:
                raise _Wrong(f"its header is said to be {length:,} bytes long and the file has {size:,}: it is cut "
                             "short, or no safetensors file")
            if length > LONGEST_HEADER:
                raise _Wrong(f"its header is {length:,} bytes long; at most {LONGEST_HEADER:,} are allowed")
            text = file.read(length)
        return _check(_parse(text), 8 + length, size)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except _Wrong as error:
        raise RequestError(f"{path}: not a readable safetensors file: {error}") from None


class _Wrong(Exception):
    pass


def _parse(text: bytes) -> list[tuple[str, object]]:
    """The header's (name, entry) pairs, in order, so that a name given twice is seen."""
    # A list of ten million zeros would fit into a header and take many times its bytes in memory. A tensor's entry has
    # about 8 of these marks in its 60 bytes or more; only a header with far more of them can do that.
    if len(text) > 1_000_000 and text.count(b",") + text.count(b"[") + text.count(b"{") > len(text) // 5:
        raise _Wrong("its header is not a list of tensors")
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"its header is not JSON ({str(error)[:80] or type(error).__name__})") from None
    if not isinstance(pairs, _Pairs):
        raise _Wrong("its header is not a table of tensors")
    return pairs


class _Pairs(list):
    """A JSON object as (key, value) pairs."""


def _check(pairs: list[tuple[str, object]], data: int, size: int) -> dict[str, Entry]:
    """The entries, once each is right by itself and all of them cover the file's bytes from `data` to `size` once."""
    entries: dict[str, Entry] = {}
    for name, value in pairs:
        if name in entries:
            raise _Wrong(f"its header names {_short(name)} twice")
        if name != "__metadata__":
            entries[name] = _entry(name, value, data, size)
    at, before = data, None
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < at:
            raise _Wrong(f"{_short(name)} lies over {_short(before)}")
        if entry.begin > at:
            raise _Wrong(f"{entry.begin - at:,} bytes before {_short(name)} belong to no tensor")
        at, before = entry.end, name
    if at != size:
        raise _Wrong(f"{size - at:,} bytes at its end belong to no tensor")
    return entries


def _entry(name: str, value: object, data: int, size: int) -> Entry:
    fields = dict(value) if isinstance(value, _Pairs) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (_whole(shape) and _whole(offsets) and len(offsets) == 2 and isinstance(dtype, str)):
        raise _Wrong(f"{_short(name)} has no proper dtype, shape and data_offsets")
    if dtype not in BITS:
        raise _Wrong(f"{_short(name)} is of the unknown dtype {_short(dtype)}")
    begin, end = offsets
    if not begin <= end <= size - data:
        raise _Wrong(f"{_short(name)} is said to lie at bytes {begin:,} to {end:,} of {size - data:,}: the file is cut "
                     "short or damaged")
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (end - begin):
        raise _Wrong(f"{_short(name)} of shape {_short(str(list(shape)))} and dtype {dtype} takes {-(-bits // 8):,} "
                     f"bytes, and has {end - begin:,}")
    return Entry(dtype, tuple(shape), data + begin, data + end)


def _whole(values: object) -> bool:
    """Whether it is a list of a few whole numbers, none of them absurd."""
    return type(values) is list and len(values) <= 16 and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 120 else text[:117] + "…"


def stored(path: Path) -> list[Stored]:
    """The file's tensors, mapped; none is read yet."""
    entries = read_header(path)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # a change to a weight stays in memory
    return [
        Stored(name, entry.shape, entry.dtype, path, entry.dtype in FLOATS,
               lambda dtype, entry=entry: _tensor(mapped, entry), lambda entry=entry: _forget(mapped, entry))
        for name, entry in entries.items()
    ]


def _tensor(mapped: mmap.mmap, entry: Entry) -> Tensor:
    dtype, count = FLOATS[entry.dtype], math.prod(entry.shape)
    if count == 0:
        return torch.empty(entry.shape, dtype=dtype)
    if entry.begin % dtype.itemsize:  # by a writer that did not pad its header
        whole = torch.frombuffer(mapped, dtype=torch.uint8, count=count * dtype.itemsize, offset=entry.begin)
        return whole.clone().view(dtype).view(entry.shape)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=entry.begin).view(entry.shape)


def _forget(mapped: mmap.mmap, entry: Entry) -> None:
    """Let the system take back the pages that hold this tensor alone; they can be read from the file again."""
    start = -(-entry.begin // mmap.PAGESIZE) * mmap.PAGESIZE
    end = entry.end // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED, start, end - start)
