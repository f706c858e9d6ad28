"""llmwright: from raw text to a language model of your own.

    import llmwright as lw

    model = lw.load("runs/demo")
    print(lw.generate(model, "def main("))

The import itself is light: what needs PyTorch is loaded when it is first used.
"""

import os

__version__ = "0.1.0"

_WHERE = {
    "load": "engine.language_model",
    "Chat": "engine.chat",
    "LanguageModel": "engine.language_model",
    "Generation": "engine.generate",
    "Sampling": "engine.sampler",
    "Error": "errors",
    "RequestError": "errors",
    "WorkError": "errors",
}
__all__ = ["generate", "perplexity", *_WHERE]


def __getattr__(name: str):
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value  # looked up once
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def generate(model, prompt, **options):
    """The text that `model` (from `load`) writes after `prompt`: a string for a string; a list for a list of prompts,
    or for n above 1.

    Options: max_tokens, n, temperature (0 is greedy), top_k, top_p, min_p, typical, seed, beams, penalties, stop and
    the others of `LanguageModel.generate`, which gives the same with token ids, log-probabilities and the reason for
    the end.
    """
    if isinstance(model, (str, os.PathLike)):
        from .errors import RequestError

        raise RequestError(f"{model}: a path; load the model first: llmwright.load({str(model)!r})")
    results = model.generate(prompt, **options)
    return [result.text for result in results] if isinstance(results, list) else results.text


def perplexity(model, text: str, **options) -> dict:
    """How well `model` (from `load`) predicts `text`: bits per byte and perplexities by name; see
    `evals.perplexity.evaluate_text`. Options: context, stride, batch."""
    from .evals.perplexity import evaluate_text

    return evaluate_text(model.model, model.tokenizer, text, **options)
