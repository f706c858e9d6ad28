"""What a path holds, as data: a model, a run, a data directory or a tokenizer. Reads headers, not weights."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ..errors import RequestError
from ..progress import amount, clock


def describe(path: str | Path) -> dict:
    """`{"kind": "model" | "run" | "data" | "tokenizer", "path": …, …}`. Raises RequestError when it is none of them."""
    path = existing(path)
    if path.is_dir():
        if (path / "config.json").is_file():
            return _model(path)
        if any((path / name).exists() for name in ("manifest.json", "metrics.jsonl", "checkpoints")):
            return _run(path)
        if (path / "data.json").is_file():
            return _data(path)
        if (path / "model" / "config.json").is_file():  # a checkpoint of a run
            return _model(path / "model")
        if len(files := list(path.glob("*.gguf"))) == 1:
            return _model_file(files[0])
    elif path.suffix == ".safetensors":
        raise RequestError(f"{path}: weights alone; give the model directory they are in")
    elif path.suffix in (".gguf", ".bin"):
        return _model_file(path)
    if path.suffix in (".yaml", ".yml"):
        raise RequestError(f"{path}: a recipe? llmwright plan {path} says what it comes to, llmwright build {path} builds it")
    try:
        return _tokenizer(path)
    except RequestError as error:
        if not path.is_dir():
            raise RequestError(f"{error}; or a model, run or data directory, or a .gguf file") from None
        if "no tokenizer in this directory" not in str(error):
            raise
        raise RequestError(
            f"{path}: neither a model (config.json), a run (manifest.json), a data directory (data.json) nor a "
            "tokenizer"
        ) from None


def existing(path: str | Path) -> Path:
    """`path`, its ~ expanded, or the place of a pulled model of that name. Raises RequestError when there is neither."""
    from ..checkpoint.cache import resolve

    return resolve(path)


def _model(path: Path) -> dict:
    from ..checkpoint.directory import load_config

    config = load_config(path)
    files = sorted(path.glob("*.safetensors"))
    dtypes = Counter()
    for file in files:
        dtypes.update(_dtypes(file))
    files = files or sorted(path.glob("pytorch_model*.bin"))
    name = "tokenizer.json" if (path / "tokenizer.json").is_file() else None
    return _shape(path, config, files, dtypes) | {
        "tokenizer": name is not None, "tokenizer_file": name, "tokenizer_fault": _tokenizer_fault(path, config.vocab_size)}


def _model_file(path: Path) -> dict:
    from ..checkpoint import one_file

    config, fault, size = one_file.load_config(path), None, 0
    try:
        size = one_file.tokenizer(path).vocab_size
    except RequestError as error:
        fault = str(error).removeprefix(f"{path}: ")
    return _shape(path, config, [path], one_file.formats(path)) | {
        "tokenizer": True, "tokenizer_file": "in the file" if path.suffix == ".gguf" else "beside the file",
        "tokenizer_fault": fault or _too_many(size, config.vocab_size)}


def _shape(path: Path, config, files: list[Path], dtypes: Counter) -> dict:
    from ..plan.parameters import parameters

    a, counted, experts = config.attention, parameters(config), config.experts
    scaling, windows = getattr(config.positions, "scaling", None), [w for w in config.windows if w]
    return {
        "kind": "model", "path": str(path), "family": config.family, "transformer": config.kind,
        "parameters": counted.total, "active_parameters": counted.active, "parts": counted.parts,
        "encoder_layers": config.n_encoder_layers, "experts": experts and experts.n_experts,
        "active_experts": experts and experts.n_active, "window": windows[0] if windows else None,
        "windowed_layers": len(windows), "rope_scaling": scaling and scaling.kind,
        "original_context": scaling and scaling.original_context, "layers": config.n_layers, "d_model": config.d_model, "d_ff": config.feed_forward.d_ff,
        "heads": a.n_heads, "kv_heads": a.n_kv_heads, "head_dim": a.head_dim, "context": config.context,
        "vocab_size": config.vocab_size, "tied": config.tie_embeddings if config.head else None,
        "sentence": config.sentence and asdict(config.sentence),
        "dtype": "+".join(name for name, _ in dtypes.most_common()) or None,
        "bytes": sum(file.stat().st_size for file in files), "files": [file.name for file in files],
    }


def _tokenizer_fault(path: Path, vocab_size: int) -> str | None:
    """What is wrong with a model's tokenizer, None when it is right or not there."""
    from ..tokens.load import load

    if not (path / "tokenizer.json").is_file():
        return None
    try:
        size = load(path).vocab_size
    except RequestError as error:
        return str(error).removeprefix(f"{path / 'tokenizer.json'}: ")
    return _too_many(size, vocab_size)


def _too_many(size: int, vocab_size: int) -> str | None:
    return f"{size:,} tokens, more than the model's {vocab_size:,}" if size > vocab_size else None


def _dtypes(file: Path) -> dict[str, int]:
    """Bytes by dtype, from a safetensors file's header."""
    from ..checkpoint.safetensors_file import read_header

    counts: dict[str, int] = {}
    for entry in read_header(file).values():
        counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.end - entry.begin
    return counts


def _run(path: Path) -> dict:
    records = _records(path / "metrics.jsonl")
    steps = [r for r in records if r.get("loss") is not None]
    scored = [r for r in records if r.get("val_loss") is not None]
    best = min(scored, key=lambda r: r["val_loss"], default={})
    newest, measured = (steps or scored or [{}])[-1], scored[-1] if scored else {}
    result, test = _json(path / "result.json"), _json(path / "eval.json")
    live = _holder(path / "lock")
    state = f"in use by process {live}" if live else "done" if result else "stopped before its end"
    return {
        "kind": "run", "path": str(path), "state": state, "step": newest.get("step"),
        "tokens": newest.get("tokens"), "seconds": newest.get("time"), "loss": newest.get("loss"),
        "val_loss": measured.get("val_loss"), "val_bpb": measured.get("val_bpb"), "val_step": measured.get("step"),
        "val_accuracy": measured.get("val_accuracy"), "accuracy": test.get("accuracy"),
        "best_val_loss": best.get("val_loss"), "best_step": best.get("step"),
        "bits_per_byte": test.get("bits_per_byte"), "perplexity_per_token": test.get("perplexity_per_token"),
        "checkpoints": sorted((p.name for p in path.glob("checkpoints/step-*")), key=lambda n: (len(n), n)),
        "model": "model" if (path / "model" / "config.json").is_file() else None,
        "report": "report.html" if (path / "report.html").is_file() else None,
    }


def _holder(lock: Path) -> str | None:
    """The process that holds the run's lock, if one does."""
    import fcntl

    try:
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read().strip() or "unknown"
    except OSError:
        pass
    return None


def _records(file: Path) -> list[dict]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a last line cut short by a kill
        if isinstance(record, dict):
            records.append(record)
    return records


def _json(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _data(path: Path) -> dict:
    from ..data.shards import DataDir

    card = DataDir.open(path).card
    keys = ("documents", "tokens", "bytes")
    try:
        splits = {name: {key: sum(s[key] for s in split["shards"]) for key in keys}
                  for name, split in card["splits"].items()}
        sources = {name: {key: source.get(key) for key in ("path", "bytes")}
                   for name, source in card.get("sources", {}).items()}
        pairs = card.get("documents_are") == "pairs"
        for split in splits.values() if pairs else ():
            split["documents"] //= 2  # a source and a target each
    except (AttributeError, KeyError, TypeError):
        raise RequestError(f"{path / 'data.json'}: not as prepare writes it; prepare the data again") from None
    return {"kind": "data", "path": str(path), "sources": sources, "splits": splits, "pairs": pairs,
            "vocab_size": card["vocab_size"], "tokenizer": card.get("tokenizer", {}).get("kind")}


def _tokenizer(path: Path) -> dict:
    from pydoc_data.topics import topics

    from ..tokens.load import load
    from ..tokens.statistics import statistics

    tokenizer = load(path)
    figures = statistics(tokenizer, topics.values(), top=1000)  # English and code that every Python has
    # runs of spaces, line ends and dashes are longer and say nothing
    words = [token["text"] for token in figures["longest"] if token["text"].strip(" ▁Ġ_.").isalpha()]
    return {
        "kind": "tokenizer", "path": str(path), "type": tokenizer.kind, "vocab_size": tokenizer.vocab_size,
        "byte_level": tokenizer.byte_level, "specials": tokenizer.special_tokens,
        "bytes_per_token": figures["bytes_per_token"], "longest": words[:12], "fingerprint": tokenizer.fingerprint,
    }


def lines(found: dict) -> list[tuple[str, str]]:
    """`describe`'s answer as (name, value) lines for a person."""
    head = [(found["kind"], found["path"])]
    body = {"model": _model_lines, "run": _run_lines, "data": _data_lines, "tokenizer": _tokenizer_lines}
    return head + body[found["kind"]](found)


def _model_lines(m: dict) -> list[tuple[str, str]]:
    parts = ", ".join(f"{name.replace('_', '-')} {n:,}" for name, n in m["parts"].items() if n)
    size = f"{amount(m['bytes'], 'B')} in {len(m['files'])} file{'s' * (len(m['files']) != 1)}, {m['dtype'] or 'PyTorch pickles'}"
    tokenizer = m["tokenizer_file"] or "none in this directory"
    if m["tokenizer_fault"]:
        tokenizer += f", which cannot be used: {m['tokenizer_fault']}"
    layers = f"{m['layers']} layers"
    if m["encoder_layers"]:
        layers = f"{m['encoder_layers']} encoder and {m['layers']} decoder layers"
    experts = f" × {m['experts']} experts, {m['active_experts']} a token" if m["experts"] else ""
    active = f", {m['active_parameters']:,} of them active for a token" if m["experts"] else ""
    context = f"{m['context']:,} tokens"
    if m["rope_scaling"]:
        context += f", {m['rope_scaling']} rope scaling from {m['original_context']:,}"
    if m["window"]:
        context += f"; {m['windowed_layers']} of {m['layers']} layers see a window of {m['window']:,}"
    heads = {True: "head tied to the embedding", False: "head of its own", None: "no head over it: the model ends in states"}
    return [
        ("family", f"{m['family']} ({m['transformer']})"),
        ("parameters", f"{m['parameters']:,}{active}"),
        ("", parts),
        ("shape", f"{layers}, {m['d_model']} wide, feed-forward {m['d_ff']}{experts}"),
        ("heads", f"{m['heads']} of width {m['head_dim']}, {m['kv_heads']} for keys and values"),
        ("context", context),
        ("vocabulary", f"{m['vocab_size']:,}, {heads[m['tied']]}"),
        *([("sentences", _sentence(m["sentence"], m["context"]))] if m["sentence"] else []),
        ("weights", size if m["files"] else "none: neither safetensors nor pytorch_model.bin"),
        ("tokenizer", tokenizer),
    ]


def _sentence(how: dict, context: int) -> str:
    pooled = {"mean": "the mean of the states", "max": "each channel's maximum", "first": "the first state"}[how["pooling"]]
    length = " at length 1" if how["normalize"] else ""
    prompts = f"; prompts {', '.join(name for name, _ in how['prompts'])}" if how["prompts"] else ""
    return f"{pooled}{length}, of at most {how['max_tokens'] or context:,} tokens{prompts} (llmwright embed)"


def _run_lines(r: dict) -> list[tuple[str, str]]:
    out = [("state", r["state"])]
    if r["step"] is not None:
        extra = f", {amount(r['tokens'], 'tokens')}" if r["tokens"] else ""
        out.append(("step", f"{r['step']:,}{extra}" + (f" in {clock(r['seconds'])}" if r["seconds"] else "")))
    if r["loss"] is not None:
        out.append(("loss", f"{r['loss']:.4f} (training, nats per token)"))
    if r["val_loss"] is not None:
        per_byte = f", {r['val_bpb']:.4f} bits per byte" if r["val_bpb"] is not None else ""
        per_byte += f", {r['val_accuracy']:.1%} right" if r["val_accuracy"] is not None else ""
        out.append(("validation", f"last {r['val_loss']:.4f}{per_byte} at step {r['val_step']:,}"))
        out.append(("", f"best {r['best_val_loss']:.4f} at step {r['best_step']:,}"))
    if r["bits_per_byte"] is not None:
        per_token = f", perplexity {r['perplexity_per_token']:.2f} per token" if r["perplexity_per_token"] else ""
        out.append(("test", f"{r['bits_per_byte']:.4f} bits per byte{per_token}"))
    if r["accuracy"] is not None:
        out.append(("test", f"{r['accuracy']:.1%} of the targets right, perplexity {r['perplexity_per_token']:.2f} per token"))
    out.append(("checkpoints", ", ".join(r["checkpoints"]) or "none yet"))
    for name in ("model", "report"):
        if r[name]:
            out.append((name, str(Path(r["path"]) / r[name])))
    return out


def _data_lines(d: dict) -> list[tuple[str, str]]:
    out = []
    for name, s in list(d["sources"].items())[:6]:
        out.append(("source", f"{name}: {s['path']}" + (f", {amount(s['bytes'], 'B')}" if s["bytes"] else "")))
    if len(d["sources"]) > 6:
        out.append(("", f"and {len(d['sources']) - 6} more"))
    for name, s in d["splits"].items():
        what = ("pair" if d["pairs"] else "document") + "s" * (s["documents"] != 1)
        out.append((name, f"{s['documents']:,} {what}, {s['tokens']:,} tokens, {amount(s['bytes'], 'B')}"))
    text = sum(s["bytes"] for s in d["splits"].values())
    tokens = sum(s["tokens"] for s in d["splits"].values())
    kind = f"{d['tokenizer']}, " if d["tokenizer"] else ""
    out.append(("tokenizer", f"{kind}{d['vocab_size']:,} tokens, {text / max(1, tokens):.2f} bytes a token here"))
    return out


def _tokenizer_lines(t: dict) -> list[tuple[str, str]]:
    specials = ", ".join(f"{name} {i}" for name, i in list(t["specials"].items())[:8])
    more = f" and {len(t['specials']) - 8} more" if len(t["specials"]) > 8 else ""
    return [
        ("type", f"{t['type']}{', byte-level' if t['byte_level'] else ''}"),
        ("vocabulary", f"{t['vocab_size']:,} tokens"),
        ("specials", specials + more or "none"),
        ("bytes a token", f"{t['bytes_per_token']:.2f} on Python's topic pages (English and code)"),
        ("longest words", " ".join(repr(token if len(token) <= 24 else token[:23] + "…") for token in t["longest"][:8])),
        ("fingerprint", t["fingerprint"][:16]),
    ]
