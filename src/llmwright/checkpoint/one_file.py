"""A model in one file, whatever the format: GGUF, or llama2.c's .bin."""

from collections import Counter
from pathlib import Path

import torch

from .. import families
from ..errors import RequestError
from ..model.config import ModelConfig
from ..model.transformer import Transformer
from ..tokens.tokenizer import Tokenizer
from . import gguf, llama2c

KINDS = "a directory with config.json and model.safetensors, a .gguf file, or a .bin of llama2.c"


def _format(path: Path):
    """The module that reads it."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if start == b"GGUF" or path.suffix == ".gguf":
        return gguf
    if start[:2] == b"PK" or start[:1] == b"\x80":  # PyTorch's archives and pickles are called .bin too
        raise RequestError(f"{path}: weights alone; give the model directory they are in")
    if path.suffix == ".bin":
        return llama2c
    raise RequestError(f"{path}: not a model: a model is {KINDS}")


def load(path: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Transformer, Tokenizer]:
    """The model, its tables and matrices in `dtype`, and its tokenizer. Raises RequestError for a file that is neither
    format, or damaged."""
    return _format(path).load(path, dtype=dtype, device=device)


def load_config(path: Path) -> ModelConfig:
    """The configuration alone; no weight is read."""
    return families.read_config(_format(path).read_config(path))


def tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in the file, or beside it."""
    return _format(path).tokenizer(path)


def formats(path: Path) -> Counter:
    """Bytes of weights by number format."""
    if _format(path) is gguf:
        return gguf.formats(path)
    return Counter(F32=path.stat().st_size - llama2c.HEADER.size)
