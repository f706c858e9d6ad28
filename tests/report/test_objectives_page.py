"""The page of a run whose objective is not the next token: what was given and what came of it, the figures that it has, and
commands that fit."""

import json

import pytest

from llmwright.report import write_report
from llmwright.report.summary import next_steps

CARD = {
    "documents_are": "pairs", "examples": [{"name": "pair 0", "source": "m", "text": "eins\n→ one"}],
    "sources": {"m": {"path": "a.de, a.en", "bytes": 100, "files": 2}},
    "steps": {"read": {"documents": 12, "bytes": 100}, "repaired": {}, "dropped": {"max_ratio": {"documents": 2, "bytes": 9}},
              "exact_duplicates": {"documents": 0, "bytes": 0}, "kept": {"documents": 10, "bytes": 91}},
    "split": {"rule": "hash", "fractions": [0.8, 0.1, 0.1], "published": ["test"]},
    "splits": {"train": {"documents": 8, "tokens": 40, "bytes": 70, "sources": {"m": {"documents": 8, "tokens": 40, "bytes": 70}}},
               "test": {"documents": 2, "tokens": 10, "bytes": 21, "sources": {}}},
}


@pytest.fixture
def run(tmp_path):
    """A small translation run."""
    (tmp_path / "data").mkdir()
    files = {
        "recipe.yaml": "name: t\nmodel: {family: marian, n_layers: 2, d_model: 64}\ntrain: {objective: seq2seq, steps: 4, prompts: [Ein Haus]}\n",
        "metrics.jsonl": "\n".join(json.dumps(line) for line in [
            {"step": 1, "loss": 5.0, "lr": 0.1, "tokens_per_second": 9}, {"step": 2, "val_loss": 4.0, "val_accuracy": 0.25},
            {"step": 3, "loss": 3.0, "lr": 0.1, "tokens_per_second": 9}, {"step": 4, "val_loss": 3.0, "val_accuracy": 0.5},
        ]),
        "samples.jsonl": json.dumps({"step": 4, "prompt": "Ein Haus", "text": "a <b>house</b>"}),
        "eval.json": json.dumps({"objective": "seq2seq", "loss": 3.0, "perplexity_per_token": 20.1, "accuracy": 0.437, "tokens": 1000,
                                 "split": "test", "completions": [{"prompt": "Zwei", "text": "two", "reference": "Two."}]}),
        "result.json": json.dumps({"state": "finished", "seconds": 9, "steps": 4, "tokens": 99, "final": {"val_loss": 3.0, "val_accuracy": 0.5}}),
        "data/data.json": json.dumps(CARD),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_was_given_and_what_came_of_it(run):
    page = write_report(run).read_text()
    assert "Marian-style text-to-text model" in page and "Target tokens right" in page and "44%" in page
    assert "Ein Haus</b>\n→ a &lt;b&gt;house&lt;/b&gt;" in page and "in the data: Two." in page
    assert "behind the arrow, what it made of it" in page and "which the model continues" not in page
    assert "Right on validation text" in page and "bits per byte</button>" not in page


def test_pairs_are_called_pairs(run):
    page = write_report(run).read_text()
    assert "8 pairs" in page and "Examples of the pairs" in page and "documents</span>" not in page
    assert "Split as published (test)" in page and "sides too unequal" in page and "near duplicates" not in page


@pytest.mark.parametrize("objective, words", [("masked", "fill masks"), ("span", "missing spans"), ("seq2seq", "write targets")])
def test_the_commands_fit_the_objective(tmp_path, objective, words):
    steps = next_steps(tmp_path, {"train": {"objective": objective, "steps": 5, "prompts": ["it's <extra_id_0>"]}}, {})
    assert words in steps[0]["why"] and "generate" in steps[0]["command"]
    assert ("fill-mask" if objective == "masked" else "AutoModelForSeq2SeqLM") in steps[-1]["command"]
    assert not any("data.corpus=~/notes" in step["command"] for step in steps)
