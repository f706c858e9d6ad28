"""`llmwright bench serve MODEL`"""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure what runs here.")


@app.callback()
def _bench() -> None:
    pass


@app.command("serve")
def serve(
    model: Annotated[str | None, typer.Argument(
        help="A pulled model, a model or run directory, or a .gguf file: a server is started for it and ended."
    )] = None,
    url: Annotated[str | None, typer.Option(
        help="Measure the server of OpenAI's API that runs there, as http://localhost:8000, instead of one for MODEL."
    )] = None,
    name: Annotated[str | None, typer.Option(
        "--model", help="With --url: what that server calls the model. Default: the first it names.")] = None,
    api_key: Annotated[str | None, typer.Option(
        help="With --url: the key that server asks for.", envvar="OPENAI_API_KEY")] = None,
    streams: Annotated[str, typer.Option(help="Requests at a time, one row for each number.")] = "1,8,32",
    prompt_tokens: Annotated[int, typer.Option(help="Of a prompt of these.", min=1)] = 128,
    answer_tokens: Annotated[int, typer.Option(help="Of an answer to these.", min=1)] = 128,
    rounds: Annotated[int, typer.Option(help="Each row is measured so often.", min=1)] = 3,
    long_tokens: Annotated[int, typer.Option(
        help="Of a prompt that is read cold, and of the beginning that two prompts share; 0: leave both out.", min=0
    )] = 500,
    arrivals: Annotated[int, typer.Option(help="Requests that come at random; 0: none.", min=0)] = 64,
    rate: Annotated[float, typer.Option(help="How many of these come a second.", min=0.001)] = 2.0,
    seed: Annotated[int, typer.Option(help="Of prompts, lengths and arrivals.", min=0)] = 0,
    json: Annotated[str | None, typer.Option("--json", help="Also write all of it to this file; -: to stdout instead.",
                                             metavar="FILE")] = None,
    weights: Annotated[str | None, typer.Option(help="As of `llmwright serve`, and so those below.")] = None,
    dtype: Annotated[str | None, typer.Option()] = None,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    step_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic")] = False,
    cache_memory: Annotated[int | None, typer.Option(min=1)] = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Tokens a second, the time to the first token and between tokens, at several streams; a long prompt cold and with
    a beginning that was read before; requests that come at random."""
    from contextlib import nullcontext

    from ..errors import RequestError
    from ..progress import console
    from ..serve.bench import Asker, Case, measure
    from ..serve.launch import Launched
    from ..serve.load import Target

    case = Case(_streams(streams), prompt_tokens, answer_tokens, rounds, long_tokens, arrivals, rate, seed)
    most = max((*case.streams, 1))
    own = {"--weights": weights, "--dtype": dtype, "--threads": threads, "--step-tokens": step_tokens,
           "--cache-memory": cache_memory, "--device": device, "--deterministic": deterministic or None}
    options = [text for option, value in own.items() if value is not None
               for text in ([option] if value is True else [option, str(value)])]
    if (model is None) == (url is None):
        raise RequestError("give a MODEL, for which a server is started, or --url of one that runs"
                           + (", not both" if model else ""))
    if url and options:
        raise RequestError(f"{options[0]}: the server at --url runs already, with its own options")
    if model and name:
        raise RequestError(f"--model {name}: it belongs to --url; a server started here has one model")
    if json not in (None, "-"):
        _check_place(json)
    if model and most > 64:
        options += ["--max-texts", str(most)]
    progress = console()
    if model:
        from .describe import existing

        existing(model)
        progress.say(f"starting a server for {model} …")
    with Launched(model, *options) if model else nullcontext() as started:
        asker = Asker(Target.of(url or started.url, api_key if url else None), name, seed)
        with progress.task("measuring", case.requests, "requests") as task:
            found = measure(asker, case, task.advance)
    found["server"] = ["llmwright", "serve", model, *options] if model else None
    if json == "-":
        from json import dumps

        print(dumps(found, indent=2))
        return
    from ..serve.bench_table import table

    print(table(found))
    if json:
        from pathlib import Path

        from ..checkpoint.files import write_json

        write_json(Path(json).expanduser(), found)


def _streams(text: str) -> tuple[int, ...]:
    """The numbers in "1,8,32". Raises RequestError."""
    from ..errors import RequestError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= 1000 for part in parts):
        raise RequestError(f"--streams {text!r}: numbers from 1 to 1000 with commas between them are right, as 1,8,32")
    return tuple(int(part) for part in parts)


def _check_place(file: str) -> None:
    """Before minutes of work: whether `file` can be written at its end."""
    import os
    from pathlib import Path

    from ..errors import RequestError

    place = Path(file).expanduser()
    if place.is_dir() or not os.access(place.absolute().parent, os.W_OK):
        raise RequestError(f"--json {file}: no file can be written there")
