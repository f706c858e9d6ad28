"""`llmwright embed MODEL TEXT…`"""

from typing import Annotated

import typer

SHOWN, COMPARED = 10, 2000  # texts whose whole matrix is printed; texts whose closest pairs are


def embed(
    model: Annotated[str, typer.Argument(help="A model directory or a pulled model.", metavar="MODEL")],
    texts: Annotated[list[str] | None, typer.Argument(help="The texts.", metavar="TEXT")] = None,
    file: Annotated[str | None, typer.Option(help="One text a line; - reads them from stdin.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write the vectors to this .npy file.")] = None,
    prompt: Annotated[str | None, typer.Option(help="One of the model's prompts, by name, before each text.")] = None,
    max_tokens: Annotated[int | None, typer.Option(
        help="Read no more tokens of a text. Default: as the model says.")] = None,
    dtype: Annotated[str, typer.Option(help="What to compute in: auto, float32, bfloat16 or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="The vectors as JSON.")] = False,
) -> None:
    """Turn texts into vectors, and show how alike the texts are."""
    import sys

    from ..errors import RequestError
    from ..progress import Lines, Progress, console
    from .describe import existing

    if bool(texts) == (file is not None):
        raise RequestError("give texts, or --file FILE with one a line (- for stdin); not both")
    if max_tokens is not None and max_tokens < 1:
        raise RequestError(f"--max-tokens {max_tokens}: it must be at least 1")
    if output is not None:
        _writable(output)
    existing(model)  # before the seconds that PyTorch takes to load
    texts = _lines(file) if file is not None else list(texts)
    if len(texts) > COMPARED and output is None and not json:
        raise RequestError(f"{len(texts):,} texts: say where their vectors go: -o vectors.npy, or --json")

    from ..engine import precision
    from ..engine.embed import check
    from ..engine.language_model import load
    from ..train.machine import pick_device

    loaded = load(model, device=str(pick_device(device)))
    check(loaded.model)
    dtype = precision.choose(loaded.model, loaded.tokenizer, texts) if dtype == "auto" else dtype
    precision.set_precision(loaded.model, dtype)
    progress = console()
    if len(texts) < 100:  # done before a bar would be read
        progress, progress.say = Progress(), Lines().say
    vectors = loaded.embed(texts, prompt=prompt, max_tokens=max_tokens, progress=progress)
    if json:
        from json import dumps

        rounded = [[float(f"{x:.7g}") for x in vector] for vector in vectors.tolist()]
        print(dumps({"model": model, "dimensions": vectors.shape[1], "dtype": dtype, "vectors": rounded}))
    if output is not None:
        _save(output, vectors)
        print(f"{output}: {len(vectors):,} vectors of {vectors.shape[1]} numbers", file=sys.stderr)
    if json or output is not None:
        return
    sys.stdout.reconfigure(errors="replace")
    print(_compared(texts, vectors))


def _lines(file: str) -> list[str]:
    """The lines of a text file, without the newline at its end. Raises RequestError that names an empty one."""
    import sys
    from pathlib import Path

    from ..errors import RequestError

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise RequestError(f"{file}: not UTF-8 text") from None
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {error.strerror}") from None
    if lines == [""]:
        raise RequestError(f"{file}: no text in it")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise RequestError(f"{file}: line {number} is empty; a vector for each line needs a text on each line")
    return lines


def _writable(output: str) -> None:
    from pathlib import Path

    from ..errors import RequestError

    path = Path(output).expanduser()
    if path.suffix != ".npy":
        raise RequestError(f"{output}: vectors are written as NumPy's own file: name it something.npy")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise RequestError(f"{output}: " + ("a directory" if path.is_dir() else f"no directory {path.parent}"))


def _save(output: str, vectors) -> None:
    import io
    from pathlib import Path

    import numpy as np

    from ..checkpoint.files import write_file

    content = io.BytesIO()
    np.save(content, vectors)
    write_file(Path(output).expanduser(), content.getvalue())


def _compared(texts: list[str], vectors) -> str:
    """The cosines of a few texts as a matrix, of more the closest pairs, and how to get the vectors."""
    import numpy as np

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T  # (N, N)
    how = f"{vectors.shape[1]} numbers a text: --json prints them, -o vectors.npy saves them"
    if len(texts) == 1:
        start = " ".join(f"{x:.4f}" for x in vectors[0, :6])
        return f"{start} …\n{how}"
    if len(texts) > SHOWN:
        i, j = np.triu_indices(len(texts), 1)
        best = np.argsort(-cosines[i, j], kind="stable")[:SHOWN]
        lines = [f"the {SHOWN} closest pairs of {len(texts):,} texts, by cosine"]
        lines += [f"{cosines[a, b]:6.3f}  {_short(texts[a], 34):<34}  {_short(texts[b], 34)}" for a, b in
                  zip(i[best], j[best])]
        return "\n".join([*lines, how])
    lines = ["cosine" + "".join(f"{k:>7}" for k in range(1, len(texts) + 1))]
    for k, (row, text) in enumerate(zip(cosines, texts), 1):
        lines.append(f"{k:>6}" + "".join(f"{x:7.3f}" for x in row) + f"  {_short(text, 40)}")
    return "\n".join([*lines, how])


def _short(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
