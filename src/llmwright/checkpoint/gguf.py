"""GGUF, llama.cpp's file format: one file with a model's settings, tokenizer, chat template and weights.

What is read from one is what a model directory would hold: a config.json, weights under the published names, a
tokenizer.json. From there on, loading goes the same way for both.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import families
from ..errors import RequestError
from ..model.transformer import Transformer
from ..tokens import gguf_tokenizer
from ..tokens.tokenizer import Tokenizer
from . import gguf_architectures, gguf_names
from .gguf_file import GGUFFile
from .weights import Stored, assemble


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds, as published files would: `config` is config.json, `weights` are still in the file."""

    config: dict
    weights: Iterable[Stored]
    tokenizer_tree: dict
    tokenizer_config: dict

    @property
    def chat_template(self) -> str | None:
        return self.tokenizer_config.get("chat_template")


def read(path: Path | str) -> Contents:
    """The contents of a GGUF file. Raises RequestError, one line, for a file that is damaged or not supported."""
    file = _open(path)
    config = gguf_architectures.read_config(file)
    weights = gguf_names.published(file, gguf_architectures.find(file)[1], config)
    return Contents(config, weights, *gguf_tokenizer.read(file.metadata))


def load(
    path: Path | str, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Transformer, Tokenizer]:
    """The model, its tables and matrices in `dtype`, and its tokenizer."""
    contents = read(path)
    try:
        config = families.read_config(contents.config)
    except RequestError as error:
        raise RequestError(f"{path}: {str(error).removeprefix('config.json: ')}") from None
    built = _tokenizer(contents.tokenizer_tree, contents.tokenizer_config, path)
    return assemble(config, contents.weights, Path(path), dtype=dtype, device=device), built


def read_config(path: Path | str) -> dict:
    """The metadata as a published config.json; no weight is read."""
    return gguf_architectures.read_config(_open(path))


def tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer alone."""
    return _tokenizer(*gguf_tokenizer.read(_open(path).metadata), path)


def formats(path: Path | str) -> Counter:
    """Bytes of weights by number format."""
    counts = Counter()
    for entry in _open(path).tensors.values():
        counts[entry.kind.name] += entry.nbytes
    return counts


def _tokenizer(tree: dict, config: dict, path: Path | str) -> Tokenizer:
    try:
        made = Tokenizer(tree, config)
        _ = made._plain_core  # the library's own check of the content
        return made
    except RequestError as error:
        raise RequestError(f"{path}: its tokenizer cannot be used: {error}") from None
    except Exception as error:  # the tokenizers library raises bare Exception
        raise RequestError(f"{path}: its tokenizer cannot be used: {error}") from None


def _open(path: Path | str) -> GGUFFile:
    path = Path(path).expanduser()
    file = GGUFFile(path)
    parts = file.metadata.get("split.count", int, 1)
    if parts > 1:
        raise RequestError(f"{path}: one of {parts} parts of a model; join them first: llama-gguf-split --merge")
    return file
