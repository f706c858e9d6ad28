"""A model and its tokenizer, loaded together: what `llmwright.load(path)` returns."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import cache, directory, one_file
from ..errors import RequestError
from ..model.transformer import Transformer
from ..progress import amount
from ..tokens import load as load_tokenizer
from ..tokens.tokenizer import Tokenizer
from . import dtype as dtypes, precision, weights as held
from .chat import answer
from .embed import embed
from .fill_mask import Filling, fill_mask
from .generate import Generation, generate
from .options import choose
from .sampler import GREEDY, Sampling
from .window import Window

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(repr=False)
class LanguageModel:
    """`model` computes, `tokenizer` reads and writes, `path` is the model directory or file they came from.

    `stop_tokens` and `bad_words` are what the model's generation_config.json adds to those of the tokenizer, `advice`
    how its makers would draw an answer (temperature, top_p, …).
    """

    model: Transformer
    tokenizer: Tokenizer
    path: Path
    stop_tokens: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    advice: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        config, size = self.model.config, self.model.size
        return (f"<LanguageModel {self.path}: {config.family} ({self.kind}), {amount(size, 'parameters')}, context "
                f"{config.context:,}, vocabulary {config.vocab_size:,}>")

    @property
    def generation(self) -> dict:
        """What a generation_config.json says of it, beyond what follows from config.json."""
        ends = dict.fromkeys((*self.model.config.specials("eos"), *self.stop_tokens))
        return {
            **({"eos_token_id": list(ends) if len(ends) > 1 else next(iter(ends))} if ends else {}),
            **({"bad_words_ids": [list(word) for word in self.bad_words]} if self.bad_words else {}),
            **({"do_sample": True, **self.advice} if self.advice else {}),
        }

    @property
    def kind(self) -> str:
        """decoder, encoder or encoder-decoder"""
        return self.model.config.kind

    def generate(
        self, prompt: str | list[str], *, max_tokens: int = 128, n: int = 1, stop: str | list[str] = (),
        stop_tokens: list[int | str] = (), window: int | Window | None = None, top_log_probs: int = 0, on_text=None,
        batch: int = 32, **options,
    ) -> Generation | list[Generation]:
        """Continue one prompt or several (an encoder-decoder: write what it makes of them).

        `options`: the fields of `Sampling` (temperature, top_p, seed, …), or greedy=True, or beams=4 with
        length_penalty and early_stopping. Without any of them a decoder draws from its distribution as it is, and an
        encoder-decoder is greedy. One `Generation` for one prompt; a list for several, or for `n` above 1, the
        texts of a prompt side by side. `window`: how many positions a decoder holds, to go on beyond its context. The
        rest as in `engine.generate.generate`.
        """
        sampling, beams = choose(options, GREEDY if self.kind == "encoder-decoder" else Sampling(), n)
        return self.run(
            prompt, max_tokens=max_tokens, n=n, sampling=sampling, beams=beams, stop=stop, stop_tokens=stop_tokens,
            window=Window(window) if isinstance(window, int) else window, top_log_probs=top_log_probs, on_text=on_text,
            batch=batch,
        )

    def run(self, prompt, *, sampling: Sampling, n: int = 1, stop_tokens=(), **options):
        """`generate` with a finished choice of how to choose tokens."""
        stop_tokens = (stop_tokens,) if isinstance(stop_tokens, (int, str)) else tuple(stop_tokens)
        results = generate(
            self.model, self.tokenizer, prompt, sampling=self.settings(sampling), n=n,
            stop_tokens=(*stop_tokens, *self.stop_tokens), **options,
        )
        return results[0] if isinstance(prompt, str) and n == 1 else results

    def chat(self, messages: list[dict], **options) -> Generation:
        """The answer to a conversation, [{"role": "user", "content": "Hello"}, …], by the model's chat template; if the
        last message is the assistant's, how it goes on.

        `options`: max_tokens, the fields of `Sampling` or greedy=True, stop, on_text(piece), tools, template_options.
        Without any the text is drawn as the model's makers advise. `engine.chat.Chat` keeps what was read between
        turns.
        """
        return answer(self, messages, **options)

    def settings(self, sampling: Sampling) -> Sampling:
        """`sampling` with what this model never writes."""
        return replace(sampling, bad_words=(*sampling.bad_words, *self.bad_words))

    def embed(self, texts: str | list[str], **options) -> np.ndarray:
        """One vector a text from an encoder: (N, D) float32, or (D,) for one text. Options (prompt, max_tokens, …) as in
        `engine.embed.embed`."""
        if isinstance(texts, str):
            return embed(self.model, self.tokenizer, [texts], **options)[0]
        return embed(self.model, self.tokenizer, list(texts), **options)

    def fill(self, text: str, *, top: int = 5) -> list[list[Filling]]:
        """For each mask in `text` the `top` likeliest tokens, of an encoder with a head; see `engine.fill_mask`."""
        return fill_mask(self.model, self.tokenizer, text, top=top)


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


def load(
    path: Path | str, *, dtype: str = "float32", device: str = "cpu", weights: str | None = None,
    deterministic: bool = False,
) -> LanguageModel:
    """The model and tokenizer in a model directory, a run directory, a GGUF file or one of llama2.c's.

    `dtype`: what it computes in, float32 or bfloat16, or "auto": in which this machine writes text faster; an encoder
    on the CPU also int8. `weights`: what a decoder that is only to write holds its matrices in, "float", "int8" or
    "int4" (`engine.weights`), or "auto": as the file has them. `deterministic`: what it writes does not depend on what else it writes at that time, to
    the bit. Raises RequestError that names what is missing or damaged.
    """
    if dtype not in (*DTYPES, "auto", "int8"):
        raise RequestError(f"dtype {dtype!r} is not supported: it must be {' or '.join(DTYPES)}")
    place = model_directory(path)
    if dtype == "auto":
        config = (directory if place.is_dir() else one_file).load_config(place)
        dtype = dtypes.faster(config, device) if config.kind != "encoder" else "float32"
    stored = DTYPES.get(dtype, torch.float32)
    if place.is_dir():
        model = directory.load(place, dtype=stored, device=device)
        tokenizer = load_tokenizer.load(place)
    else:
        model, tokenizer = one_file.load(place, dtype=stored, device=device)
    if dtype == "int8" and model.config.kind != "encoder":
        right = " or ".join(DTYPES)
        raise RequestError(f"dtype 'int8' is for encoders, and {place} is a {model.config.kind}: it must be {right}")
    if dtype == "int8":
        precision.set_precision(model, dtype)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise RequestError(
            f"{place}: its tokenizer has {tokenizer.vocab_size} tokens and its model {model.config.vocab_size}: "
            "they do not belong together"
        )
    if weights == "auto":
        weights = held.stored(place) if device == "cpu" and model.config.kind == "decoder" else "float"
    if deterministic or (weights or "float") != "float" or (weights and model.config.kind == "decoder"):
        held.hold(model, weights or "float", steady=deterministic)
    return LanguageModel(model, tokenizer, place, **_generation_settings(place, tokenizer.vocab_size))


def _generation_settings(place: Path, vocab_size: int) -> dict:
    """What generation_config.json says of the end of a text, of tokens that are never written (Llama 3 has several end
    tokens, Marian forbids its padding), and of how to draw one."""
    try:
        found = json.loads((place / "generation_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        if not place.is_dir():
            return {}
        why = str(error).splitlines()[0]
        raise RequestError(f"{place / 'generation_config.json'}: not valid JSON: {why}") from None
    found = found if isinstance(found, dict) else {}
    ends, bad = found.get("eos_token_id"), found.get("bad_words_ids")
    ends = ends if isinstance(ends, list) else [ends]
    bad = [word for word in bad if isinstance(word, list) and word] if isinstance(bad, list) else []
    return {
        "stop_tokens": tuple(i for i in ends if _is_token(i, vocab_size)),
        "bad_words": tuple(tuple(word) for word in bad if all(_is_token(i, vocab_size) for i in word)),
        "advice": _advice(found),
    }


def _advice(found: dict) -> dict[str, float]:
    """The settings of `Sampling` in a generation_config.json that draws."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    advice = {name: found[name] for name in names if found.get(name) is not None}
    if found.get("do_sample") is not True:
        return {}
    try:
        Sampling(**advice)
    except RequestError:
        return {}
    return advice


def _is_token(i, vocab_size: int) -> bool:
    return type(i) is int and 0 <= i < vocab_size
