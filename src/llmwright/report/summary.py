"""The page's words: what this model is, the figures a reader looks for first, and what to try next."""

import json
import math
import os
import shlex
from pathlib import Path

from ..progress import amount, command_name
from .datacard import training_size
from .figures import duration, moment, percent
from .series import number

FAMILIES = {
    "llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma",
    "gemma2": "Gemma 2", "gemma3": "Gemma 3", "gpt2": "GPT-2", "bloom": "BLOOM", "falcon": "Falcon", "palm": "PaLM",
    "bert": "BERT", "roberta": "RoBERTa", "t5": "T5", "marian": "Marian",
}
KINDS = {"masked": "text encoder", "span": "text-to-text model", "seq2seq": "text-to-text model"}
HIDDEN = {"masked": "Masks filled right", "span": "Span tokens right", "seq2seq": "Target tokens right"}


def objective_of(recipe: dict) -> str:
    train = recipe.get("train") if isinstance(recipe.get("train"), dict) else {}
    return str(train.get("objective") or "causal")


def lede(recipe, plan, card, result) -> str:
    """One sentence: what this model is and what it was made from."""
    shape = recipe.get("model") if isinstance(recipe.get("model"), dict) else {}
    family = FAMILIES.get(shape.get("family"), shape.get("family"))
    parameters = plan.get("parameters") if isinstance(plan.get("parameters"), dict) else {}
    size = f"{amount(number(parameters['total']), '').strip()}-parameter " if number(parameters.get("total")) > 0 else ""
    words = f"A {size}{family + '-style ' if family else ''}{KINDS.get(objective_of(recipe), 'language model')}"
    if shape.get("n_layers") and shape.get("d_model"):
        words += f", {shape['n_layers']} layers deep and {shape['d_model']} wide"
    size, _ = training_size(card)
    if size > 0:
        words += f", trained {'on' if shape.get('start_from') else 'from scratch on'} {amount(size, 'B')} of text"
    if number(result.get("seconds")) > 0:
        words += f" in {_duration(result['seconds'])}"
    return words + "."


def _duration(seconds: float) -> str:
    """Seconds in words: 45 seconds, 4.2 minutes, 3.1 hours."""
    for limit, size, unit in ((90, 1, "seconds"), (5400, 60, "minutes"), (172_800, 3600, "hours")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if size == 1 else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def headline(sections: dict, result: dict) -> list[dict]:
    """The few figures a reader looks for first: quality, then cost. What was not measured is left out."""
    scores = sections["test"].get("scores", {})
    final = result.get("final") if isinstance(result.get("final"), dict) else {}
    figures = []

    def add(label, value, show, unit="", note=""):
        if math.isfinite(number(value)):
            figures.append({"label": label, "value": show(number(value)), "unit": unit, "note": note})

    tested = "on validation text" if sections["test"].get("on_validation") else "on unseen test text"
    add("Bits per byte", scores.get("bits_per_byte"), "{:.3f}".format, note=tested)
    if not figures:
        add("Bits per byte", final.get("val_bpb"), "{:.3f}".format, note="on validation text")
        add("Validation loss", final.get("val_loss"), "{:.3f}".format, "nats", "per token")
    hidden = HIDDEN.get(str(scores.get("objective")))
    if hidden:
        add(hidden, scores.get("accuracy"), percent, note=tested)
    add("Perplexity", scores.get("perplexity_per_token"), "{:.1f}".format, note="per token, same text")
    checked = f"of {scores['check_n']} completions" if scores.get("check_n") else "of sampled completions"
    if math.isfinite(number(scores.get("parse_share_of_text"))):  # cut at the same length, real code does not all parse
        checked += f"; real code: {percent(scores['parse_share_of_text'])}"
    add("Valid Python", scores.get("parse_share"), percent, note=checked)
    steps = f"{int(result['steps']):,} steps, " if number(result.get("steps")) > 0 else ""
    seen = f"{steps}{amount(number(result['tokens']), '').strip()} tokens" if number(result.get("tokens")) > 0 else ""
    add("Training time", result.get("seconds"), duration, note=seen)
    mfu = sections["training"].get("mfu")
    add("Tokens/s", result.get("tokens_per_second"), "{:,.0f}".format,
        note=f"{percent(mfu)} of this machine's peak" if mfu else "")
    memory = number(result.get("peak_memory"))
    if math.isfinite(memory):
        value, unit = amount(memory, "B").split(" ")
        figures.append({"label": "Peak memory", "value": value, "unit": unit, "note": "of the whole process"})
    return figures


def test_facts(scores: dict) -> list[tuple[str, str]]:
    shown = (
        ("Bits per byte", "bits_per_byte", "{:.4f}".format), ("Perplexity per token", "perplexity_per_token", "{:.2f}".format),
        (HIDDEN.get(str(scores.get("objective")), "Right"), "accuracy", percent),
        ("Loss per token", "loss", "{:.4f} nats".format), ("Test tokens", "tokens", lambda v: amount(v, "")),
        ("Parse as Python", "parse_share", percent),
        ("Real code, cut alike", "parse_share_of_text", percent),
    )
    return [(label, show(number(scores[key]))) for label, key, show in shown if math.isfinite(number(scores.get(key)))]


def environment(manifest: dict) -> list[tuple[str, str]]:
    machine = manifest.get("machine") if isinstance(manifest.get("machine"), dict) else {}
    facts = [("training begun", moment(manifest["created"]))] if isinstance(manifest.get("created"), str) else []
    for key, value in machine.items():
        if value not in (None, "", [], {}):
            value = amount(value, "B") if key == "memory" and isinstance(value, (int, float)) else value
            facts.append((key.replace("_", " "), str(value)))
    for label, key in (("llmwright", "code_version"), ("seeds", "seeds"), ("data", "data_fingerprint")):
        value = manifest.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        if value not in (None, "", []):
            facts.append((label, str(value)[:16] if key == "data_fingerprint" else str(value)))
    return facts


def longer(train: dict) -> str:
    """Settings that train twice as long. Every limit is doubled, since the first one reached ends a run: then each
    share of the way, and the schedule with it, is reached at twice the time."""
    limits = {key: number(train.get(key)) for key in ("steps", "max_minutes", "epochs")}
    set_ones = [f"train.{key}={2 * limit:.12g}" for key, limit in limits.items() if limit > 0]
    return " ".join(set_ones) or "train.epochs=2"


def next_steps(run: Path, recipe: dict, result: dict) -> list[dict]:
    """Commands to go on with, for this very run."""
    call = shlex.quote(command_name())
    here = Path(os.path.relpath(run)) if run.is_absolute() and run.is_relative_to(Path.cwd()) else run
    path, model = shlex.quote(str(here / "recipe.yaml")), shlex.quote(str(here / "model"))
    name = recipe.get("name") or run.name
    train = recipe.get("train") if isinstance(recipe.get("train"), dict) else {}
    prompts = [p for p in train.get("prompts") or [] if isinstance(p, str)]
    prompt = shlex.quote(prompts[0] if prompts else "Once upon a time")
    out = f" out={shlex.quote(str(recipe['out']) + '-longer')}" if recipe.get("out") else ""
    own = f" out={shlex.quote(str(recipe['out']) + '-notes')}" if recipe.get("out") else ""
    twice = {"why": "Train twice as long, and compare the two reports.",
             "command": f"{call} build {path} name={shlex.quote(f'{name}-longer')} {longer(train)}{out}"}
    objective = objective_of(recipe)
    if objective != "causal":
        return [_use(objective, f"{call} generate {model} {prompt}"), *([] if result.get("state") == "early" else [twice]),
                _elsewhere(objective, here / "model", prompts)]
    return [
        {"why": "Let it write.", "command": f"{call} generate {model} {prompt}"},
        *([] if result.get("state") == "early" else [twice]),  # its loss had stopped falling
        {"why": "The same recipe on your own text.",
         "command": f"{call} build {path} name=notes data.corpus=~/notes{own}"},
        {"why": "See what a larger model would cost before you pay for it.",
         "command": f"{call} plan {path} model.d_model=512 model.n_layers=8"},
        {"why": "Load it in any tool that reads Hugging Face directories.",
         "command": f"python -c \"from transformers import pipeline; print(pipeline('text-generation', '{here / 'model'}')"
                    f"('def ')[0]['generated_text'])\""},
    ]


def _use(objective: str, command: str) -> dict:
    why = {"masked": "Let it fill masks.", "span": "Let it write the missing spans.", "seq2seq": "Let it write targets."}
    return {"why": why.get(objective, "Let it write."), "command": command}


def _elsewhere(objective: str, model: Path, prompts: list[str]) -> dict:
    """Loading it in transformers."""
    path, prompt = json.dumps(str(model)), json.dumps(prompts[0] if prompts else "text", ensure_ascii=False)
    if objective == "masked":
        code = f'from transformers import pipeline; print(pipeline("fill-mask", {path})("The <|mask|> is"))'
    else:
        code = (f"from transformers import AutoModelForSeq2SeqLM as M, AutoTokenizer as T; p = {path}; t = T.from_pretrained(p); "
                f'x = t({prompt}, return_tensors="pt", return_token_type_ids=False); '
                "print(t.decode(M.from_pretrained(p).generate(**x)[0]))")
    return {"why": "Load it in any tool that reads Hugging Face directories.", "command": f"python -c {shlex.quote(code)}"}
