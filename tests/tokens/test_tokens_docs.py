"""The page on tokenizers is true."""

import re
from pathlib import Path

import pytest

from llmwright import recipe
from llmwright.tokens.train import KINDS, LARGEST, SMALLEST, train

PAGE = (Path(__file__).parents[2] / "docs" / "tokenizers.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    assert capsys.readouterr().out == "1.0\n" and (tmp_path / "my-tokenizer" / "tokenizer.json").is_file()


def test_the_recipe_keys_in_the_examples_are_known():
    overrides = re.findall(r"\btokenizer\.\w+=\S+", PAGE)
    read = recipe.parse({"train": {"steps": 1}}, overrides).tokenizer
    assert (read.kind, read.vocab_size, read.path) == ("unigram", 8192, "~/models/my-model")


def test_kinds_and_limits_are_the_recipe_s():
    assert re.findall(r"^\| `([a-z]+)`", PAGE, re.MULTILINE) == list(KINDS)
    assert f"{SMALLEST} to {LARGEST:,}" in PAGE
    with pytest.raises(Exception, match="single bytes alone need 424"):
        train(["text"], "wordpiece", 300)
