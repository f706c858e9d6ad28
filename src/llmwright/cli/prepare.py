"""`llmwright prepare CORPUS… -o DIR`"""

from typing import Annotated

import typer


def prepare(
    corpus: Annotated[list[str], typer.Argument(help="Files, folders, python:stdlib, python:topics, hub:owner/name.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The data directory to make.")],
    tokenizer: Annotated[str | None, typer.Option(help="A tokenizer to use; default: train one.")] = None,
    kind: Annotated[str, typer.Option(help="bpe, unigram, wordpiece, chars or bytes.")] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="Of the tokenizer to train.")] = 4096,
    objective: Annotated[str, typer.Option(help="What will be trained on it: masked and span need tokens of their own.")] = "causal",
    set: Annotated[list[str] | None, typer.Option("--set", help="A value of a recipe's data section: near_duplicates=null", metavar="KEY=VALUE")] = None,
    seed: Annotated[int, typer.Option(help="For everything random.")] = 1337,
    json: Annotated[bool, typer.Option("--json", help="Print data.json.")] = False,
) -> None:
    """Make training data: read, clean, deduplicate, split, tokenize, write shards."""
    import json as _json
    from pathlib import Path

    from .. import recipe as recipes
    from ..build.show import data_summary
    from ..data.prepare import prepare as run
    from ..progress import console

    spec = {"kind": kind, "vocab_size": vocab_size} | ({"path": tokenizer} if tokenizer else {})
    recipe = recipes.parse(
        {"train": {"steps": 1, "objective": objective}, "data": {"corpus": list(corpus)}, "tokenizer": spec, "seed": seed},
        [f"data.{item}" for item in set or []], where="prepare",
    )
    card = run(recipe.data, recipe.tokenizer, Path(out), seed=seed, progress=console())
    print(_json.dumps(card) if json else data_summary(card, Path(out)))
