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
from llmwright.report.figures import duration, moment, percent
from llmwright.report.summary import longer, next_steps
from llmwright.report.text import tail
from llmwright.report.tokenizer import cut, load

INPUTS = ("metrics.jsonl", "samples.jsonl", "eval.json", "data/data.json", "data/tokenizer/tokenizer.json", "recipe.yaml")


def words(page: str) -> str:
    """The text a reader sees, without the scripts."""
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_figures_of_the_run_are_on_the_page(report):
    text = words(report.read_text("utf-8"))
    for figure in ("0.987", "10.2", "62%", "3:53", "52,852", "861.0 MB", "5.25M-parameter Qwen3-style", "−7.4%", "+8.1%"):
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
    assert difference(200, 210) == "+5.0%" and difference(200, 150) == "−25%" and difference(200, 200.4) == "as planned"


def test_a_kind_of_figure_has_one_format(report):
    assert [percent(s) for s in (0, 0.062, 0.0996, 0.406, 1)] == ["0%", "6.2%", "10%", "41%", "100%"]
    assert duration(28.4) == "28 s" and duration(197) == "3:17"
    assert moment("2026-11-22T09:37:05+0000") == "22 November 2026, 09:37 UTC" and moment("yesterday") == "yesterday"
    text = words(report.read_text("utf-8"))
    assert not re.search(r"\d %|\d(MB|KB|GB)\b", text) and "without writing this report" in text


def test_twice_as_long_doubles_whichever_limit_ended_the_run():
    assert longer({"steps": 400, "max_minutes": 3.5, "epochs": None}) == "train.steps=800 train.max_minutes=7"
    assert longer({"max_minutes": 4}) == "train.max_minutes=8"
    assert longer({"steps": 1_234_567}) == "train.steps=2469134"


def test_commands_name_another_run_and_the_program_as_it_is_called_here(tmp_path, monkeypatch):
    monkeypatch.setattr("llmwright.report.summary.command_name", lambda: ".venv/bin/llmwright")
    recipe = {"name": "demo", "out": "runs/a b", "train": {"steps": 10}}
    commands = [step["command"] for step in next_steps(tmp_path, recipe, {"state": "finished"})]
    assert all(command.startswith((".venv/bin/llmwright ", "python -c")) for command in commands)
    assert commands[1].endswith("name=demo-longer train.steps=20 out='runs/a b-longer'")
    early = [step["command"] for step in next_steps(tmp_path, recipe, {"state": "early"})]
    assert early == [commands[0], *commands[2:]]  # its loss had stopped falling: no reason to go on


def test_a_card_begins_with_the_last_lines_of_its_prompt(run):
    assert tail("a\nb\n\nc\n\n\nd\n\n") == "b\n\nc\n\n\nd\n\n" and tail("short\n") == "short\n" and tail("") == ""
    assert tail("x" * 5000) == "x" * 240
    scores = json.loads((run / "eval.json").read_text())
    long = {"prompt": "".join(f"line_{n} = {n}\n" for n in range(90)), "text": "its_own = 1\n", "parses": True}
    (run / "eval.json").write_text(json.dumps({**scores, "checked": [long]}))
    text = words(write_report(run).read_text("utf-8"))
    assert "… line_87 = 87 line_88 = 88 line_89 = 89 its_own = 1" in text and "line_86" not in text


def test_what_was_taken_once_has_no_slider_and_is_said(run):
    last = (run / "samples.jsonl").read_text().splitlines()[-1]
    (run / "samples.jsonl").write_text(last + "\n")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 2, "val_loss": 2.75}\n')
    page = write_report(run).read_text("utf-8")
    text = words(page)
    assert "Move the slider" not in text and 'type="range"' not in page and "at step 1,500. Samples were taken once" in text
    assert "Validation was measured once: 2.750 at step 2" in text


def test_a_source_shows_what_was_kept_and_its_tokens_are_of_that():
    part = {"documents": 3, "bytes": 600, "tokens": 200}
    card = {"sources": {"topics": {"path": "python:topics", "files": 0, "bytes": 5000}},
            "splits": {name: {"sources": {"topics": part}} for name in ("train", "val")}}
    (row,) = datacard._sources(card)
    assert row["files"] == "" and row["documents"] == "6 documents" and row["read"] == "5.0 KB"
    assert row["kept"] == "1.2 KB" and row["tokens"] == "400" and row["per_token"] == "3.00 bytes each"
    (row,) = datacard._sources({**card, "split": {"rule": "tail"}})  # each document has a piece in either
    assert row["documents"] == "3 documents" and row["kept"] == "1.2 KB"


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
