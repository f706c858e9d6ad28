"""`llmwright info PATH`"""

from typing import Annotated

import typer


def info(
    path: Annotated[str, typer.Argument(
        help="A model, run or data directory, or a tokenizer (directory or file).", metavar="PATH")],
    json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """What a model, run, data directory or tokenizer is, in about ten lines."""
    from .describe import describe, lines

    found = describe(path)
    if json:
        from json import dumps

        print(dumps(found, ensure_ascii=False))
    else:
        for name, value in lines(found):
            print(f"{name:<14} {value}")
