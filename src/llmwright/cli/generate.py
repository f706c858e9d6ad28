"""`llmwright generate MODEL PROMPT`"""

from typing import Annotated

import typer


def generate(
    model: Annotated[str, typer.Argument(help="A model directory or a run directory.", metavar="MODEL")],
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads it from stdin.", metavar="PROMPT")] = "",
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the most likely token.")] = False,
    temperature: Annotated[float, typer.Option(help="Below 1 sharper, above 1 wilder; 0 (below 1e-5) is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k most likely tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the most likely tokens that reach p together; 1: all.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Only tokens at least this share as likely as the likeliest.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(help="At most so many new tokens.")] = 128,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    n: Annotated[int, typer.Option("--n", help="So many texts.")] = 1,
    dtype: Annotated[str, typer.Option(help="What to compute in: float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Texts, token ids and log-probabilities as JSON.")] = False,
) -> None:
    """Continue a text. The text is printed as it comes, after the prompt."""
    import dataclasses
    import secrets
    import sys

    from ..errors import RequestError
    from .describe import existing

    if n < 1:
        raise RequestError(f"--n {n}: it must be at least 1")
    existing(model)  # before the seconds that PyTorch takes to load

    from ..engine.generate import generate as run
    from ..engine.language_model import load
    from ..engine.sampler import Sampling
    from ..train.machine import pick_device

    seed = secrets.randbits(31) if seed is None else seed
    sampling = Sampling(0.0 if greedy else temperature, top_k, top_p, min_p, seed)
    if prompt == "-":
        prompt = sys.stdin.read()
    loaded = load(model, dtype=dtype, device=str(pick_device(device)))
    options = dict(max_tokens=max_tokens, sampling=sampling, stop=stop or ())
    if json:
        from json import dumps

        results = run(loaded.model, loaded.tokenizer, [prompt] * n, **options)
        print(dumps({"seed": seed, "generations": [dataclasses.asdict(r) for r in results]}, ensure_ascii=False))
        return

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    if n == 1:
        # nothing is printed of a request that turns out wrong
        begun = []
        result = run(
            loaded.model, loaded.tokenizer, prompt, **options,
            on_text=lambda i, text: show(text if begun else begun.append(1) or prompt + text),
        )[0]
        show("\n" if begun else f"{result.prompt}\n")
        return
    for number, result in enumerate(run(loaded.model, loaded.tokenizer, [prompt] * n, **options), 1):
        show(f"--- {number}\n{prompt}{result.text}\n")
