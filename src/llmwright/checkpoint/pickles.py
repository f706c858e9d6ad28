"""PyTorch's own weight files (`pytorch_model.bin`), for models that were never published as safetensors.

They are pickles, and a pickle can hold any program. PyTorch's restricted reader builds tensors and plain containers and
refuses everything else before it is called; no other reader is ever used here.
"""

import pickle
import re
from pathlib import Path

import torch

from ..errors import RequestError
from .weights import Stored


def stored(path: Path) -> list[Stored]:
    """The file's tensors, mapped. Raises RequestError when it holds anything but tensors by name."""
    try:
        found = _load(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        if called := re.search(r"GLOBAL:? ([\w.]+\.\w+)", str(error)):
            raise RequestError(f"{path}: not read: it holds more than tensors (it calls for {called[1][:80]}), and "
                               "that could run code. Ask its publisher for safetensors") from None
        raise RequestError(f"{path}: not read: it is damaged, or holds more than tensors, which could run code. Ask "
                           "its publisher for safetensors") from None
    except Exception as error:  # a damaged archive can fail anywhere inside PyTorch
        said = " ".join(str(error).split()).split(". ")[0][:150]
        raise RequestError(f"{path}: not a readable file of weights: {said or type(error).__name__}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise RequestError(f"{path}: not a table of weights by name but a {type(found).__name__}")
    for name, tensor in found.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise RequestError(f"{path}: {name[:120]} is no plain tensor but a {type(tensor).__name__}")
        # a few numbers can pose as a table of any size
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise RequestError(f"{path}: {name[:120]} is said to have shape {list(tensor.shape)}; the file does not "
                               "hold so many numbers")
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return [Stored(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), path, tensor.dtype in floats,
                   lambda dtype, tensor=tensor: tensor.detach()) for name, tensor in found.items()]


def _load(path: Path):
    with open(path, "rb") as file:
        archive = file.read(2) == b"PK"  # the layout since PyTorch 1.6; only that one can be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
