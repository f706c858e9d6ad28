"""What a build and a data directory have come to, for a person at a terminal."""

import shlex
from pathlib import Path

from ..progress import amount, clock, command_name

HIDDEN = {"masked": "masked tokens", "span": "tokens of the spans", "seq2seq": "target tokens"}


def summary(result: dict) -> str:
    """The end of a build: test figures, completions, where things are, and what to try next."""
    out, run, test = [], result["result"], result["test"]
    path, call = result["directory"], command_name()
    start = next((c["prompt"] for c in test["completions"] if c["prompt"].strip()), "The ").splitlines()[0] if test else "The "
    out.append(
        f"{run['steps']:,} steps, {amount(run['tokens'], 'tokens')} in {clock(run['seconds'])} "
        f"({run['tokens_per_second']:,.0f} tokens/s, {run['precision']}), peak memory {amount(run['peak_memory'], 'B')}"
    )
    if test and test.get("bits_per_byte") is not None:
        out.append(
            f"{test['split']} text: {test['bits_per_byte']:.3f} bits per byte, perplexity "
            f"{test['perplexity_per_token']:.2f} per token, on {amount(test['tokens'], 'tokens')} it never saw"
        )
    elif test:
        out.append(
            f"{test['split']} {HIDDEN.get(test.get('objective'), 'targets')}: {test['accuracy']:.1%} right, perplexity "
            f"{test['perplexity_per_token']:.2f} per token, on {amount(test['tokens'], 'tokens')} of text it never saw"
        )
    if test:
        if test.get("parse_share") is not None:
            ceiling = test.get("parse_share_of_text")
            out.append(
                f"{test['parse_share']:.0%} of {test['check_n']} sampled completions parse as Python"
                + (f" (the true continuations, cut the same way: {ceiling:.0%})" if ceiling is not None else "")
            )
        for completion in test["completions"]:
            out += ["", "─" * 72, _shown(completion, test.get("objective", "causal"))]
        out += ["─" * 72, ""] if test["completions"] else []
    out += [
        f"model   {path}/model   (loads in transformers as it is)",
        f"report  {path}/report.html",
        "",
        "next:",
        f"  {call} generate {path} {shlex.quote(start)}",
        f"  {call} info {path}",
    ]
    if not test or test.get("objective", "causal") == "causal":
        out += [
            f"  {call} eval {path} --text README.md",
            f"  {call} build recipes/own.yaml data.corpus=PATH_TO_YOUR_TEXT",
        ]
    return "\n".join(out)


def _shown(completion: dict, objective: str) -> str:
    """A prompt and what the model made of it: its continuation, or below it what it wrote for it."""
    text = completion["text"].rstrip()
    if objective == "causal":
        return completion["prompt"] + "▌" + text
    reference = [f"  ({completion['reference']})"] if completion.get("reference") else []
    return "\n".join([completion["prompt"], f"→ {text}", *reference])


def data_summary(card: dict, path: Path) -> str:
    """What a data directory holds, split by split."""
    out, what = [f"{path}: vocabulary {card['vocab_size']:,}"], card.get("documents_are", "documents")
    for name, split in card["splits"].items():
        out.append(
            f"  {name:5}  {split['documents']:>9,} {what}  {amount(split['tokens'], 'tokens'):>14}  "
            f"{amount(split['bytes'], 'B'):>9}"
        )
    return "\n".join(out)
