"""`import llmwright as lw; model = lw.load(path); lw.generate(model, …)`, and what `load` makes of a directory."""

import shutil

import pytest
from small import model, tokenizer

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.checkpoint.files import point


@pytest.fixture
def model_dir(tmp_path):
    directory.save(model(), tmp_path / "m", tokenizer=tokenizer())
    return tmp_path / "m"


def test_a_model_is_loaded_and_writes(model_dir):
    loaded = lw.load(model_dir)
    text = lw.generate(loaded, "import os", max_tokens=8, temperature=0)
    result = loaded.generate("import os", max_tokens=8, temperature=0)
    assert isinstance(text, str) and text == result.text and len(result.ids) <= 8
    assert lw.generate(loaded, ["import os", "x"], max_tokens=8, temperature=0)[0] == text
    figures = lw.perplexity(loaded, "import os\nimport sys\n")
    assert figures["bytes"] == 21 and figures["bits_per_byte"] > 0


def test_a_run_directory_is_its_model(model_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(model_dir, run / "checkpoints" / "step-3" / "model")
    point(run / "last", "checkpoints/step-3")
    assert lw.load(run).path == run / "last" / "model"
    point(run / "model", "checkpoints/step-3/model")
    assert lw.load(run).path == run / "model"


def test_what_is_no_model_is_one_clear_line(model_dir, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    for path, said in (("nowhere", "no such file"), ("file", "not a model"), ("run", "no model yet"),
                       (".", "neither a model directory")):
        with pytest.raises(lw.RequestError, match=said):
            lw.load(tmp_path / path)
    (model_dir / "tokenizer.json").unlink()
    with pytest.raises(lw.RequestError, match="no tokenizer"):
        lw.load(model_dir)


def test_a_tokenizer_of_another_model_is_refused(model_dir):
    directory.save(model(vocab_size=300), model_dir, tokenizer=tokenizer())
    with pytest.raises(lw.RequestError, match="do not belong together"):
        lw.load(model_dir)


def test_wrong_options_are_named(model_dir):
    loaded = lw.load(model_dir)
    with pytest.raises(lw.RequestError, match="not heat"):
        lw.generate(loaded, "x", heat=3)
    with pytest.raises(lw.RequestError, match="top_p 3"):
        lw.generate(loaded, "x", top_p=3)
    with pytest.raises(lw.RequestError, match="float16"):
        lw.load(model_dir, dtype="float16")
