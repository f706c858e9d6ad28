"""A GGUF file as it lies on the disk: metadata and where each tensor is (the format's own page: ggml, docs/gguf.md).

    "GGUF", version, number of tensors, number of metadata entries
    metadata: (key, type, value) …           strings have their length before them, arrays their type and length
    tensors:  (name, dimensions, format, offset) …
    padding to the alignment, then the tensors' bytes, each at an aligned offset

The file is mapped, not read: opening a large one costs its header. Every length, count and offset is held against the
file's size before anything is made of it, so a damaged or hostile file ends in one line.
"""

import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import RequestError
from .gguf_types import TYPES, BlockType, decode

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # as struct does
STRING, ARRAY = 8, 9
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LONGEST_NAME = 65_535  # bytes; the format's own limit
PIECE = 1 << 20  # weights that are decoded to another type at a time; a multiple of every block
REQUIRED = object()


class Metadata:
    """Keys and values; `get` says clearly when a value is missing or of the wrong kind."""

    def __init__(self, path: Path, values: dict):
        self.path, self.values = path, values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, kind: type, default=REQUIRED):
        """The value of `key` as int, float, str, bool or list. One number given for each layer counts as that number
        when all are equal."""
        if key not in self.values:
            if default is REQUIRED:
                raise RequestError(f"{self.path}: its metadata has no {key}")
            return default
        value = self.values[key]
        if kind in (int, float) and isinstance(value, list) and value and len(set(map(repr, value))) == 1:
            value = value[0]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            said = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "…"
            raise RequestError(f"{self.path}: {key} is {said}; it must be {_CALLED[kind]}")
        return value


_CALLED = {int: "a whole number, the same for all layers", float: "a number", str: "a text", bool: "true or false",
           list: "a list"}


@dataclass(frozen=True)
class Entry:
    """A tensor in the file. `shape` is as PyTorch counts, outermost dimension first."""

    name: str
    shape: tuple[int, ...]
    kind: BlockType
    offset: int  # in the file
    file: "GGUFFile"

    @property
    def weights(self) -> int:
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        return self.kind.nbytes(self.weights)

    def parts(self) -> list["Entry"]:
        """The slices along the first dimension, as tensors of their own."""
        shape = self.shape[1:] or (1,)
        step = self.nbytes // self.shape[0]
        return [replace(self, shape=shape, offset=self.offset + i * step) for i in range(self.shape[0])]

    def read(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weights: plain floats as they lie in the file, mapped; blocks decoded, to `dtype` piece by piece."""
        if self.kind.name in FLOATS:
            dtype = FLOATS[self.kind.name]
            return torch.frombuffer(self.file.map, dtype=dtype, count=self.weights, offset=self.offset).view(self.shape)
        data = np.frombuffer(self.file.map, np.uint8, self.nbytes, self.offset)
        weights = torch.empty(self.weights, dtype=dtype)
        if dtype == torch.float32:
            decode(data, self.kind, weights.numpy())
        else:
            for start in range(0, self.weights, PIECE):
                piece = data[self.kind.nbytes(start) : self.kind.nbytes(start + PIECE)]
                weights[start : start + PIECE] = torch.from_numpy(decode(piece, self.kind))
        self.forget()
        return weights.view(self.shape)

    def forget(self) -> None:
        """Let the system take back the pages that hold this tensor alone; they can be read from the file again."""
        start = -(-self.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (self.offset + self.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start and hasattr(mmap, "MADV_DONTNEED"):
            self.file.map.madvise(mmap.MADV_DONTNEED, start, end - start)


class GGUFFile:
    """An open GGUF file: `metadata` and `tensors` (name → Entry)."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # a change to a weight stays in memory
        except ValueError:  # nothing to map
            raise RequestError(f"{path}: not a GGUF file: it is empty") from None
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
        header = _Header(path, self.map)
        n_tensors, n_entries = header.start()
        self.metadata = Metadata(path, header.entries(n_entries))
        alignment = self.metadata.get("general.alignment", int, 32)
        if alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise RequestError(f"{path}: general.alignment is {alignment}; it must be a power of two")
        self.tensors = {t.name: t for t in header.tensors(n_tensors, alignment, self)}


class _Header:
    """Reads the header from its beginning on."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.size, self.at = path, data, len(data), 0

    def fail(self, why: str) -> RequestError:
        return RequestError(f"{self.path}: not a readable GGUF file: {why}")

    def need(self, n: int, what: str) -> None:
        if n > self.size - self.at:
            raise self.fail(f"{what} at byte {self.at:,} calls for {n:,} bytes and the file ends at {self.size:,}: it "
                            "is cut short or damaged")

    def numbers(self, code: str, count: int, what: str) -> tuple:
        self.need(struct.calcsize("<" + code) * count, what)
        values = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += struct.calcsize("<" + code) * count
        return values

    def number(self, code: str, what: str):
        return self.numbers(code, 1, what)[0]

    def string(self, what: str, longest: int | None = None) -> str:
        length = self.number("Q", what)
        if longest is not None and length > longest:
            raise self.fail(f"{what} at byte {self.at:,} is {length:,} bytes long; at most {longest:,} are allowed")
        self.need(length, what)
        self.at += length
        try:
            return self.data[self.at - length : self.at].decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} at byte {self.at - length:,} is not UTF-8 text") from None

    def start(self) -> tuple[int, int]:
        """The numbers of tensors and of metadata entries."""
        if self.data[:4] != b"GGUF":
            raise RequestError(f"{self.path}: not a GGUF file: it does not begin with GGUF")
        self.at = 4
        version = self.number("I", "the version")
        if version not in (2, 3):
            if version and version & 0xFFFF == 0:
                raise self.fail("it was written for a big-endian machine, which is not supported")
            raise self.fail(f"version {version} is not supported; supported: 2 and 3")
        n_tensors, n_entries = self.numbers("Q", 2, "the counts")
        # the least that one takes: a length, a name of no bytes, a type, a value; a tensor's has dimensions and offset
        for count, least, what in ((n_entries, 13, "metadata entries"), (n_tensors, 32, "tensors")):
            if count * least > self.size:
                raise self.fail(f"it says that it holds {count:,} {what}, more than {self.size:,} bytes can")
        return n_tensors, n_entries

    def entries(self, count: int) -> dict:
        values = {}
        for _ in range(count):
            key = self.string("a metadata key", LONGEST_NAME)
            if key in values:
                raise self.fail(f"the metadata key {_short(key)} is there twice")
            values[key] = self.value(self.number("I", f"the type of {_short(key)}"), _short(key))
        return values

    def value(self, kind: int, key: str):
        if kind == STRING:
            return self.string(key)
        if kind != ARRAY:
            if kind not in NUMBERS:
                raise self.fail(f"{key} is of type {kind}, which does not exist")
            return self.number(NUMBERS[kind], key)
        inner, count = self.number("I", key), self.number("Q", key)
        if inner == STRING:
            self.need(8 * count, key)
            return self.strings(count, key)
        if inner not in NUMBERS:
            raise self.fail(f"{key} is an array of type {inner}; arrays hold numbers or texts")
        return list(self.numbers(NUMBERS[inner], count, key))

    def strings(self, count: int, key: str) -> list[str]:
        """`string`, count times; a vocabulary has some hundred thousand, so the loop is spelled out."""
        data, size, at, length, found = self.data, self.size, self.at, struct.Struct("<Q").unpack_from, []
        try:
            for _ in range(count):
                (n,) = length(data, at)
                at += 8
                if n > size - at:
                    raise struct.error
                found.append(data[at : at + n].decode())
                at += n
        except struct.error:
            raise self.fail(f"text {len(found):,} of {key}, at byte {at:,}, reaches past the end of the file: it is "
                            "cut short or damaged") from None
        except UnicodeDecodeError:
            raise self.fail(f"text {len(found):,} of {key} is not UTF-8") from None
        self.at = at
        return found

    def tensors(self, count: int, alignment: int, file: "GGUFFile") -> list[Entry]:
        entries, names = [], set()
        for _ in range(count):
            name = self.string("a tensor's name", LONGEST_NAME)
            said = _short(name)
            if name in names:
                raise self.fail(f"the tensor {said} is there twice")
            names.add(name)
            n_dimensions = self.number("I", said)
            if not 1 <= n_dimensions <= 4:
                raise self.fail(f"the tensor {said} has {n_dimensions:,} dimensions; 1 to 4 are allowed")
            shape = self.numbers("Q", n_dimensions, said)[::-1]
            number, offset = self.number("I", said), self.number("Q", said)
            entries.append((name, shape, self.kind(said, shape, number), offset))
        start = -(-self.at // alignment) * alignment
        found, end = [], start
        for name, shape, kind, offset in sorted(entries, key=lambda entry: entry[3]):
            tensor = Entry(name, shape, kind, start + offset, file)
            said = _short(name)
            if offset % alignment:
                raise self.fail(f"the tensor {said} begins at {offset:,}, which is not a multiple of {alignment}")
            if tensor.offset < end:
                raise self.fail(f"the tensor {said} begins inside the one before it")
            end = tensor.offset + tensor.nbytes
            if end > self.size:
                raise self.fail(f"the tensor {said} reaches to byte {end:,} and the file ends at {self.size:,}: it is "
                                "cut short or damaged")
            found.append(tensor)
        return found

    def kind(self, name: str, shape: tuple[int, ...], number: int) -> BlockType:
        if number not in TYPES:
            supported = ", ".join(kind.name for kind in TYPES.values())
            raise RequestError(f"{self.path}: the tensor {name} is in the format {_type_name(number)}, which is not "
                               f"supported; supported: {supported}")
        if 0 in shape or shape[-1] % TYPES[number].weights:
            raise self.fail(f"the tensor {name} has shape {list(shape)}; the last must be a multiple of "
                            f"{TYPES[number].weights} in {TYPES[number].name}, and none 0")
        return TYPES[number]


def _short(name: str) -> str:
    return name if len(name) <= 60 and name.isprintable() else repr(name[:60])


def _type_name(number: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(number).name
    except ValueError:
        return f"number {number}"
