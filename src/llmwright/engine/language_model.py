"""A model and its tokenizer, loaded together: what `llmwright.load(path)` returns."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import cache, directory, one_file
from ..errors import RequestError
from ..model.decoder import Decoder
from ..tokens import load as load_tokenizer
from ..tokens.tokenizer import Tokenizer
from .generate import Generation, generate
from .sampler import Sampling

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class LanguageModel:
    """`model` computes, `tokenizer` reads and writes, `path` is the model directory or file they came from."""

    model: Decoder
    tokenizer: Tokenizer
    path: Path

    def generate(
        self, prompt: str | list[str], *, max_tokens: int = 128, stop: str | list[str] = (), on_text=None, **sampling
    ) -> Generation | list[Generation]:
        """Continue one prompt or several; `sampling` are the fields of `Sampling` (temperature, top_p, seed, …).
        See `engine.generate.generate`."""
        one = isinstance(prompt, str)
        try:
            chosen = Sampling(**sampling)
        except TypeError:
            known = list(Sampling.__dataclass_fields__)
            wrong = [name for name in sampling if name not in known]
            raise RequestError(f"generate takes {', '.join(known)}, not {', '.join(wrong)}") from None
        results = generate(
            self.model, self.tokenizer, prompt, max_tokens=max_tokens, sampling=chosen, stop=stop, on_text=on_text
        )
        return results[0] if one else results


def model_directory(path: Path | str) -> Path:
    """`path` if it is a model directory; of a run directory its model, or while it trains its best or last
    checkpoint's; the directory or file of a pulled model of that name. A model in one file (GGUF, llama2.c) is its own
    place. Raises RequestError when there is none."""
    path = cache.resolve(path)
    if not path.is_dir():
        return path
    places = [path, path / "model"]
    places += [path / base / which / "model" for which in ("best", "last") for base in ("", "checkpoints")]
    for place in places:
        if (place / "config.json").is_file():
            return place
    if len(files := list(path.glob("*.gguf"))) == 1:
        return files[0]
    if (path / "recipe.yaml").exists():
        raise RequestError(f"{path}: this run has no model yet: let it train to its first checkpoint")
    raise RequestError(f"{path}: neither a model directory (config.json) nor a run directory with a model in it")


def load(path: Path | str, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """The model and tokenizer in a model directory, a run directory, a GGUF file or one of llama2.c's.

    `dtype`: what the blocks compute in, float32 or bfloat16. Raises RequestError that names what is missing or damaged.
    """
    if dtype not in DTYPES:
        raise RequestError(f"dtype {dtype!r} is not supported: it must be {' or '.join(DTYPES)}")
    place = model_directory(path)
    if place.is_dir():
        model = directory.load(place, dtype=DTYPES[dtype], device=device)
        tokenizer = load_tokenizer.load(place)
    else:
        model, tokenizer = one_file.load(place, dtype=DTYPES[dtype], device=device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise RequestError(
            f"{place}: its tokenizer has {tokenizer.vocab_size} tokens and its model {model.config.vocab_size}: "
            "they do not belong together"
        )
    return LanguageModel(model, tokenizer, place)
