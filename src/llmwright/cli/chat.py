"""`llmwright chat MODEL`"""

from typing import Annotated

import typer


def chat(
    model: Annotated[str, typer.Argument(
        help="A pulled model, a model or run directory, or a .gguf file; one with a chat template.", metavar="MODEL")],
    system: Annotated[str | None, typer.Option(help="What the model is told before all else.")] = None,
    temperature: Annotated[float | None, typer.Option(
        help="Below 1 sharper, above 1 wilder; 0 is greedy. Default: as the model's makers advise.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the most likely tokens that reach p together.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k most likely tokens; 0: all.")] = None,
    min_p: Annotated[float | None, typer.Option(
        help="Only tokens at least this share as likely as the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(
        help="Above 1: what was said becomes less likely.")] = None,
    max_tokens: Annotated[int, typer.Option(help="An answer has at most so many.")] = 512,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same conversation.")] = None,
    load: Annotated[str | None, typer.Option(help="Go on with a conversation that /save wrote.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Tell the speed after each answer.")] = False,
    weights: Annotated[str, typer.Option(
        help="What the matrices are held in: float, int8, int4 (smaller is faster and less exact), or auto: as the file "
             "has them.")] = "auto",
    dtype: Annotated[str, typer.Option(
        help="What to compute in: float32, bfloat16, or auto, in which this machine writes faster.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
) -> None:
    """Talk with a chat model. /help lists what can be said to the program instead. From a pipe each line is a turn, and
    stdout has the answers alone."""
    import sys

    from .. import spin
    from .describe import existing
    from .start import quickly

    existing(model)  # before the seconds that PyTorch takes to load
    spin.little()
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    shown = sys.stderr.isatty() and sys.stdin.isatty()
    if shown:
        print(f"\033[2mloading {model} …\033[0m", end="", file=sys.stderr, flush=True)
    try:
        with quickly():
            from ..checkpoint.cache import models
            from ..engine.chat import Chat
            from ..engine.language_model import load as load_model
            from ..progress import amount
            from ..train.machine import pick_device
            from .conversation import COMMANDS, Conversation
            from .prompt_line import Lines

            loaded = load_model(model, dtype=dtype, device=str(pick_device(device)), weights=weights)
            made = Chat(loaded, system, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
                        min_p=min_p, repetition_penalty=repetition_penalty, seed=seed)
            if load:
                made.load(load)
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    history = models().parent / "chat_history"
    lines = Lines([f"/{name}" for name in COMMANDS], history)
    conversation = Conversation(made, lines, stats)
    if shown:
        size = amount(loaded.model.size, "")
        precision = str(loaded.model.dtype).removeprefix("torch.")
        if loaded.model.weights != "float":
            precision = f"{loaded.model.weights} weights"
        conversation.note(f"{model}  {size} parameters, {precision}, context {loaded.model.config.context:,}")
        conversation.note("/help lists the commands; Ctrl-C stops an answer; Ctrl-D leaves\n")
    try:
        conversation.run()
    finally:
        lines.save()
