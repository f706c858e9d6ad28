"""The page is whole, escaped, forgiving to missing parts, and replaced only by a whole one."""

import html
import json
import os
import re

import pytest

from llmwright.errors import RequestError, WorkError
from llmwright.report import datacard, write_report
from llmwright.report.costs import costs, difference
from llmwright.report.datacard import waterfall
from llmwright.report.tokenizer import cut, load

INPUTS = ("metrics.jsonl", "samples.jsonl", "eval.json", "data/data.json", "data/tokenizer/tokenizer.json", "recipe.yaml")


def words(page: str) -> str:
    """The text a reader sees, without the scripts."""
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_figures_of_the_run_are_on_the_page(report):
    text = words(report.read_text("utf-8"))
    for figure in ("0.987", "10.2", "62 %", "3:53", "52,852", "861 MB", "5.25M-parameter Qwen3-style", "−7 %", "+8 %"):
        assert figure in text, figure
    assert "could not be shown" not in text and "This run has no" not in text


def test_the_file_stays_small(report):
    assert report.stat().st_size < 8_000_000


def test_model_output_is_text_and_never_markup(report):
    page = report.read_text("utf-8")
    assert "<script>window.hacked" not in page
    assert "&lt;script&gt;window.hacked = true&lt;/script&gt;" in page
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold&lt;/b&gt;" in page


def test_a_token_cannot_end_the_script_that_holds_the_figures(report):
    page = report.read_text("utf-8")
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in data and [figure["id"] for figure in json.loads(data)][:2] == ["loss", "lr"]


def test_figures_from_validation_text_are_not_called_a_test(run):
    scores = json.loads((run / "eval.json").read_text())
    (run / "eval.json").write_text(json.dumps({**scores, "split": "val"}))
    text = words(write_report(run).read_text("utf-8"))
    assert "no test text" in text and "on validation text" in text and "unseen test text" not in text


@pytest.mark.parametrize("name", INPUTS)
def test_a_missing_input_leaves_out_its_section_and_says_so(run, name):
    (run / name).unlink()
    text = words(write_report(run).read_text("utf-8"))
    assert f"This run has no {name.rsplit('/', 1)[-1]}" in text
    assert "This run has no embedding table" in text or "tokenizer" in name
    assert "What to try next" in text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"step": {}, "splits": 3, "sources": [1], "completions": 7}'])
def test_damaged_inputs_never_cost_the_page(run, content):
    for name in [*INPUTS, "plan.json", "result.json", "manifest.json"]:
        (run / name).write_text(content)
    assert "What to try next" in words(write_report(run).read_text("utf-8"))


def test_a_run_that_was_killed_early_has_a_page(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: early\ntrain: {steps: 10}\n")
    text = words(write_report(tmp_path).read_text("utf-8"))
    assert "early" in text and "This run has no metrics.jsonl" in text and "train.steps=20" in text


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(RequestError, match="nowhere: no such run directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="not a run directory"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("name: full\n")
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WorkError, match="report.html: cannot be written: No space left"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["recipe.yaml", "report.html"]


def test_the_difference_is_in_percent_of_the_plan():
    assert difference(200, 210) == "+5 %" and difference(200, 150) == "−25 %" and difference(200, 200.4) == "as planned"


def test_a_plan_without_a_result_stands_alone(run):
    (run / "result.json").unlink()
    rows = costs(run)["rows"]
    assert [row["measured"] for row in rows] == ["—"] * 4 and rows[0]["planned"] == "4:11"


def test_the_waterfall_hangs_each_drop_where_the_last_one_ended():
    drops = {"min_chars": {"documents": 10, "bytes": 100}, "exact_duplicates": {"documents": 30, "bytes": 900}}
    read, short, twin, kept = waterfall({"documents": 100, "bytes": 5000}, drops, {"documents": 60, "bytes": 4000})
    assert (short["start"], short["width"]) == (0.9, 0.1) and (twin["start"], twin["width"]) == (0.6, 0.3)
    assert short["label"] == "too short" and twin["label"] == "exact duplicates" and twin["documents"] == "−30"
    assert read["width"] == 1 and kept["documents"] == "60" and kept["bytes"] == "4.0 KB" and kept["width"] == 0.6


def test_the_waterfall_of_a_prepared_corpus_adds_up(finished_run):
    """What data.json says was read, minus every drop on the page, is what its splits hold."""
    rows = datacard.data(finished_run)["steps"]
    shown = {row["label"]: int(row["documents"].replace(",", "").replace("−", "-")) for row in rows}
    assert shown["too short"] == -1 and shown["exact duplicates"] == -1
    splits = json.loads((finished_run / "data" / "data.json").read_text())["splits"]
    assert shown["kept"] == sum(split["documents"] for split in splits.values())
    assert shown.pop("kept") == sum(shown.values())


@pytest.mark.parametrize("text", ["naïve → 数学 🙂🙂", "x = 'é'\n\tpass", "plain"])
def test_a_text_cut_into_tokens_is_still_that_text(finished_run, text):
    pieces = cut(load(finished_run), text)
    assert "".join(piece["text"] for piece in pieces) == text
    assert sum(piece["count"] for piece in pieces) == len(load(finished_run).encode(text))
