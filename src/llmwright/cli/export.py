"""`llmwright export MODEL --to gguf|safetensors -o OUT`"""

import re
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(
        help="A model or run directory, a GGUF file, or a pulled model.", metavar="MODEL")],
    out: Annotated[str, typer.Option("-o", "--out", help="The file (gguf) or directory (safetensors) to make.")],
    to: Annotated[str, typer.Option(
        "--to", help="gguf, for llama.cpp and what is built on it, or safetensors: a model directory.")] = "gguf",
    type: Annotated[str | None, typer.Option(
        "--type", help="What the matrices are stored in. gguf: f32, f16, bf16, q8_0 (default) or q4_0; safetensors: "
                       "f32 (default), f16 or bf16.")] = None,
    pre: Annotated[str | None, typer.Option(
        "--pre", help="llama.cpp's name for how the tokenizer cuts text, where it has none of its own for it.")] = None,
    name: Annotated[str | None, typer.Option(
        "--name", help="What the GGUF file says it is; default: the name of the model's directory.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
) -> None:
    """Write a model for other runtimes. What was there in the same format is replaced."""
    from json import dumps
    from pathlib import Path

    from ..errors import RequestError
    from ..progress import amount, console
    from .describe import existing

    if to not in TYPES:
        raise RequestError(f"--to {to} is not known: it must be {' or '.join(TYPES)}")
    type = (type or TYPES[to][0]).lower()
    if type not in TYPES[to]:
        raise RequestError(f"--type {type} cannot be written as {to}; these can: {', '.join(sorted(TYPES[to]))}")
    if to != "gguf" and (pre or name):
        raise RequestError("--pre and --name belong to --to gguf")
    place = Path(out).expanduser()
    source = existing(model)
    _replaceable(place, to, source)

    from ..engine.language_model import load

    loaded = load(str(source))
    if to == "gguf":
        from ..checkpoint import gguf_write

        gguf_write.save(loaded.model, place, tokenizer=loaded.tokenizer, kind=type, pre=pre,
                        name=name or _name(loaded.path), chat_template=_template(loaded), progress=console())
        size = place.stat().st_size
    else:
        import torch

        from ..checkpoint import directory

        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[type]
        weights = {name: p.detach().to(dtype) for name, p in loaded.model.named_parameters()}
        directory.save(loaded.model, place, tokenizer=loaded.tokenizer, weights=weights, generation=loaded.generation)
        size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    if json:
        print(dumps({"path": str(place), "to": to, "type": type, "bytes": size}))
    else:
        print(f"{place}  {amount(size, 'B')}, {type}")


TYPES = {"gguf": ("q8_0", "f32", "f16", "bf16", "q4_0"), "safetensors": ("f32", "f16", "bf16")}  # the first: default


_WRITTEN = re.compile(  # the files of a model directory
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|modules|config_sentence_transformers"
    r"|sentence_bert_config|vocab|model\.safetensors\.index)\.json|model(-\d+-of-\d+)?\.safetensors|chat_template\.jinja"
    r"|vocab\.txt|merges\.txt|(source|target|spiece)\.(spm|model)|1_Pooling")


def _replaceable(place, to: str, source) -> None:
    """Refuse to write over anything but an earlier export."""
    from ..errors import RequestError

    if not place.exists():
        return
    from ..engine.language_model import model_directory

    here, there = place.resolve(), model_directory(str(source)).resolve()
    if here == there or here in there.parents or there in here.parents:
        raise RequestError(f"{place}: that is the model itself, or holds it; give another -o")
    if to == "gguf":
        if place.is_dir():
            raise RequestError(f"{place}: a directory; give -o the file to make, such as {place / 'model.gguf'}")
        with open(place, "rb") as file:
            if file.read(4) not in (b"GGUF", b""):
                raise RequestError(f"{place}: it is there already, and no GGUF file; give another -o")
    elif not place.is_dir():
        raise RequestError(f"{place}: a file; give -o the directory to make")
    elif strange := sorted(file.name for file in place.iterdir() if not _WRITTEN.fullmatch(file.name)):
        raise RequestError(f"{place}: it is there already and holds {strange[0]}, which no export writes; give another -o")


def _name(path) -> str:
    """The directory's name, or the file's; of a run's model the run's."""
    path = path.resolve()
    return path.stem if path.is_file() else path.parent.name if path.name == "model" else path.name


def _template(loaded) -> str | None:
    """The chat template, which may lie beside the tokenizer."""
    file = loaded.path / "chat_template.jinja"
    if loaded.path.is_dir() and file.is_file():
        return file.read_text(encoding="utf-8")
    template = loaded.tokenizer.config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template
