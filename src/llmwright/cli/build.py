"""`llmwright build RECIPE [key=value …]`"""

from typing import Annotated

import typer


def build(
    recipe: Annotated[str, typer.Argument(help="A recipe: a YAML file.", metavar="RECIPE")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Values in place of the recipe's.", metavar="[KEY=VALUE]…")] = None,
    fresh: Annotated[bool, typer.Option(help="Start over: remove what an earlier build left.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a model: every stage a recipe names, from text to report. Done stages are skipped, stopped ones go on."""
    import json as _json

    from ..build.stages import build as run
    from ..build.show import summary
    from ..progress import console
    from ..recipe import load

    result = run(load(recipe, overrides or []), fresh=fresh, progress=console(), recipe_path=recipe)
    print(_json.dumps(result) if json else summary(result))
