"""Text on the page: samples through training, completions of the test, tokens of an example."""

from pathlib import Path

from .inputs import Missing, read_json, read_lines

MOST_STEPS = 60  # positions of the samples' slider
TAIL_LINES, TAIL_CHARACTERS = 3, 240  # of a prompt, above its completion


def _after_prompt(prompt: str, text: str, continued: bool) -> dict:
    """Prompt and continuation apart, whether or not `text` repeats the prompt; or below it what the model made of it."""
    if not continued:
        return {"prompt": prompt, "text": f"\n→ {text}"}
    return {"prompt": prompt, "text": text[len(prompt):] if prompt and text.startswith(prompt) else text}


def samples(run: Path, continued: bool = True) -> dict:
    """Sample texts grouped by step, ascending; evenly fewer when there are very many. `continued`: whether a text goes on
    from its prompt. Raises Missing."""
    by_step: dict[int, list[dict]] = {}
    for line in read_lines(run / "samples.jsonl"):
        prompt, text = str(line.get("prompt") or ""), str(line.get("text") or "")
        by_step.setdefault(int(line["step"]), []).append(_after_prompt(prompt, text, continued))
    steps = [{"step": step, "texts": by_step[step]} for step in sorted(by_step)]
    if not steps:
        raise Missing("samples.jsonl holds no sample.")
    if len(steps) > MOST_STEPS:
        last = len(steps) - 1
        steps = [steps[round(i * last / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]
    return {"steps": steps, "continued": continued}


def test(run: Path) -> dict:
    """What was measured on the test text, the completions of the recipe's prompts, and some that were checked."""
    scores = read_json(run / "eval.json")
    continued = scores.get("objective", "causal") == "causal"
    return {
        "scores": scores, "on_validation": scores.get("split") == "val",
        "completions": _completions(scores.get("completions"), continued)[:12],
        "checked": _completions(scores.get("checked"), continued)[:6],
    }


def tail(prompt: str) -> str:
    """The prompt's last lines that hold something: enough to see what is being continued."""
    lines = prompt.splitlines(keepends=True)
    full = [at for at, line in enumerate(lines) if line.strip()]
    kept = "".join(lines[full[-TAIL_LINES]:]) if len(full) > TAIL_LINES else prompt
    return kept[-TAIL_CHARACTERS:]


def _completions(given, continued: bool) -> list[dict]:
    cards = [
        {**_after_prompt(str(c.get("prompt") or ""), str(c.get("text") or ""), continued), "parses": c.get("parses"),
         "reference": c.get("reference")}
        for c in given or [] if isinstance(c, dict)
    ]
    return [{**card, "prompt": tail(card["prompt"]), "cut": tail(card["prompt"]) != card["prompt"]} for card in cards]
