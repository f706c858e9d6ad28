"""`llmwright pretrain RECIPE [key=value …]`"""

from typing import Annotated

import typer


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe: a YAML file.", metavar="RECIPE")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Values in place of the recipe's.", metavar="[KEY=VALUE]…")] = None,
    data: Annotated[str | None, typer.Option(help="A prepared data directory; default: the run's data/.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a recipe's model on prepared data. A stopped training goes on where it was."""
    import json as _json
    from pathlib import Path

    from ..build.pretrain import pretrain as run
    from ..progress import console
    from ..recipe import load

    loaded = load(recipe, overrides or [])
    outcome = run(loaded, Path(data) if data else loaded.directory / "data", console())
    result = _json.loads((loaded.directory / "result.json").read_text())
    if json:
        print(_json.dumps(result))
    else:
        final = result["final"]
        print(f"{outcome.state} at step {result['steps']:,} ({result['tokens']:,} tokens, {result['seconds']:.0f} s)")
        if final:
            more = f"{final['val_bpb']:.4f} bits a byte" if "val_bpb" in final else f"{final['val_accuracy']:.1%} right"
            print(f"validation loss {final['val_loss']:.4f} nats a token, {more}")
        print(f"model: {loaded.directory / 'model'}")
