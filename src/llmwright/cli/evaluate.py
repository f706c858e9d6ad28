"""`llmwright eval MODEL`"""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="A model directory or a run directory.", metavar="MODEL")],
    data: Annotated[str | None, typer.Option(help="A data directory. Default: the run's own.")] = None,
    split: Annotated[str, typer.Option(help="Which part of it: train, val or test.")] = "test",
    text: Annotated[list[str] | None, typer.Option(
        help="A text file, instead of a data directory; may be given several times.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens the model sees at once. Default: its context.")] = None,
    stride: Annotated[int | None, typer.Option(
        help="Move by so many tokens, so that each has more before it; slower. Default: the context.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Only about so many tokens of the split, spread evenly.")] = None,
    batch: Annotated[int, typer.Option(help="Rows at a time.")] = 16,
    dtype: Annotated[str, typer.Option(help="What to compute in: float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> None:
    """How well a model predicts text: bits per byte, and perplexity per token, word and byte."""
    from ..errors import RequestError
    from ..progress import console
    from .describe import existing

    for name, value in (("--batch", batch), ("--tokens", tokens)):
        if value is not None and value < 1:
            raise RequestError(f"{name} {value}: it must be at least 1")
    if data and text:
        raise RequestError("give --data or --text, not both")
    existing(model)  # before the seconds that PyTorch takes to load
    if not data and not text:
        if not (Path(model).expanduser() / "data" / "data.json").is_file():
            raise RequestError(f"{model}: no data directory in it; say what to score: --data DIR or --text FILE")
        data = str(Path(model).expanduser() / "data")
    if text and tokens:
        raise RequestError("--tokens is for a data directory; --text files are scored whole")
    texts = [_read(Path(name).expanduser()) for name in text or []]

    from ..data.shards import DataDir

    opened = DataDir.open(data) if data else None

    from ..engine.language_model import load
    from ..evals.perplexity import evaluate_split, evaluate_texts
    from ..train.machine import pick_device

    loaded = load(model, dtype=dtype, device=str(pick_device(device)))
    options = dict(context=context, stride=stride, batch=batch, progress=console())
    if opened:
        fingerprint = opened.card.get("tokenizer", {}).get("fingerprint")
        if fingerprint not in (None, loaded.tokenizer.fingerprint):
            raise RequestError(
                f"{data}: prepared with another tokenizer than {loaded.path} has; score plain text (--text FILE), or "
                "prepare the data with the model's tokenizer (tokenizer.path)"
            )
        opened.verify([split])
        result = evaluate_split(loaded.model, loaded.tokenizer, opened.split(split), max_tokens=tokens, **options)
        what = f"{data} ({split})"
    else:
        result = evaluate_texts(loaded.model, loaded.tokenizer, texts, **options)
        what = ", ".join(text)
    result = {"model": str(loaded.path), "text": what, "context": context or loaded.model.config.context,
              "stride": stride, **result}
    if json:
        from json import dumps

        from ..checkpoint.files import finite

        print(dumps(finite(result), ensure_ascii=False, allow_nan=False))
    else:
        print(_table(result))


def _read(path: Path) -> str:
    from ..errors import RequestError

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise RequestError(f"{path}: holds zero bytes, so it is not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _table(r: dict) -> str:
    def number(value: float) -> str:
        return f"{value:,.4g}" if value >= 1e6 else f"{value:,.2f}" if value >= 100 else f"{value:.4f}"

    counted = [f"{r[key]:,} {key}" for key in ("tokens", "words", "bytes") if r[key]]
    stride = f", stride {r['stride']}" if r["stride"] else ""
    lines = [
        ("model", r["model"]), ("text", r["text"]), ("scored", ", ".join(counted)),
        ("context", f"{r['context']}{stride}"),
    ]
    named = (
        ("bits_per_byte", "bits per byte"), ("loss", "loss (nats per token)"),
        ("perplexity_per_token", "perplexity per token"), ("perplexity_per_word", "perplexity per word"),
        ("perplexity_per_byte", "perplexity per byte"),
    )
    lines += [(label, number(r[key])) for key, label in named if r[key] is not None]
    return "\n".join(f"{name:<22} {value}" for name, value in lines)
