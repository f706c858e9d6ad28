"""`llmwright serve MODEL`"""

from typing import Annotated

import typer


def serve(
    model: Annotated[str, typer.Argument(
        help="A pulled model, a model or run directory, or a .gguf file; an encoder gives embeddings.", metavar="MODEL")],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model. Default: the last part of MODEL.")] = None,
    api_key: Annotated[list[str] | None, typer.Option(
        help="Only who has it may ask; may be given several times. Other users of this machine can see it here: a file "
             "keeps it secret.", envvar="LLMWRIGHT_API_KEYS")] = None,
    api_key_file: Annotated[str | None, typer.Option(help="A file with an API key in each line.")] = None,
    max_texts: Annotated[int, typer.Option(help="Written at a time.", min=1)] = 64,
    queue: Annotated[int, typer.Option(help="So many more wait; who comes then is told to try again (429).", min=0)] = 64,
    streams_per_key: Annotated[int, typer.Option(help="Requests of one API key at a time.", min=1)] = 64,
    max_body: Annotated[int, typer.Option(help="Bytes of a request's body.", min=1)] = 8 << 20,
    max_prompt: Annotated[int | None, typer.Option(
        help="Tokens of a prompt. Default: as many as the model reads.", min=1)] = None,
    request_seconds: Annotated[float, typer.Option(help="An answer that takes longer is given up.", min=0.001)] = 600.0,
    body_seconds: Annotated[float, typer.Option(help="A body has to arrive within.", min=0.001)] = 30.0,
    drain_seconds: Annotated[float, typer.Option(
        help="When told to stop: what runs has so long to finish.", min=0.0)] = 30.0,
    cors: Annotated[list[str] | None, typer.Option(
        help="A web page's origin that may use this server, or *; may be given several times.")] = None,
    cache_memory: Annotated[int | None, typer.Option(
        help="Bytes for keys and values. Default: half of what is free.", min=1)] = None,
    block: Annotated[int, typer.Option(help="Positions in a block of the cache.", min=1)] = 16,
    step_tokens: Annotated[int, typer.Option(
        help="Computed in a step: bounds how long those who write wait for those who read.", min=1)] = 256,
    prefix_cache: Annotated[bool, typer.Option(help="Keep what was read, for prompts that begin alike.")] = True,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with. Default: all.", min=1)] = None,
    log_prompts: Annotated[bool, typer.Option(
        "--log-prompts", help="Write what people ask and are told into the log too.")] = False,
    weights: Annotated[str, typer.Option(
        help="What a decoder holds its matrices in: float, int8, int4 (smaller is faster and less exact), or auto: as "
             "the file has them.")] = "auto",
    deterministic: Annotated[bool, typer.Option(
        "--deterministic", help="A text is the same to the bit, whoever else is served at that time.")] = False,
    dtype: Annotated[str, typer.Option(
        help="What to compute in: float32, bfloat16, or auto, in which this machine writes faster.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
) -> None:
    """Answer many at once, by OpenAI's API: chat, completions, embeddings; a chat page at /, figures at /metrics. Ctrl-C
    or SIGTERM lets what runs finish first."""
    from ..errors import RequestError
    from .describe import existing

    place = existing(model)
    try:
        from ..serve.run import serve as run
    except ImportError as error:
        raise RequestError(f"serving needs {error.name}: pip install 'llmwright[serve]'") from None
    from ..serve.settings import EngineSettings, Limits

    settings = EngineSettings(
        str(model), dtype=dtype, device=device, weights=weights, deterministic=deterministic, memory=cache_memory, block=block, max_texts=max_texts,
        step_tokens=step_tokens, prefix_cache=prefix_cache, threads=threads,
    )
    limits = Limits(
        keys=_keys(api_key, api_key_file), queue=queue, streams_per_key=streams_per_key, body_bytes=max_body,
        prompt_tokens=max_prompt, request_seconds=request_seconds, body_seconds=body_seconds, drain_seconds=drain_seconds,
        origins=tuple(cors or ()),
    )
    called = name or (model.rstrip("/").rpartition("/")[2] or str(place))
    run(settings, limits, name=called, host=host, port=port, log_prompts=log_prompts,
        ready=lambda address, about: print(_told(called, address, about), flush=True))


def _told(name: str, address: str, about) -> str:
    """What can be done now, in lines of which the first has the address."""
    held = about.dtype if about.weights == "float" else f"{about.weights} weights"
    lines = [f"{name} is served at {address}"]
    if about.kind == "decoder":
        lines += [f"  a chat page is there; OpenAI's API at {address}/v1; what it takes at {address}/docs",
                  f"  {held}, room for {about.room:,} positions; Ctrl-C lets what runs finish"]
    return "\n".join(lines)


def _keys(given: list[str] | None, file: str | None) -> tuple[str, ...]:
    """Raises RequestError for a file without keys, or a key that no header can carry."""
    from pathlib import Path

    from ..errors import RequestError

    keys = list(given or ())
    if file is not None:
        try:
            lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise RequestError(f"{file}: it holds no API key; one a line is right")
        keys += found
    for key in keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise RequestError("an API key is empty, or has spaces or other characters that a header cannot carry")
    return tuple(dict.fromkeys(keys))
