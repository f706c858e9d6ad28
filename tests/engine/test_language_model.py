"""`import llmwright as lw; model = lw.load(path); lw.generate(model, …)`, and what `load` makes of a directory."""

import json
import shutil

import pytest
from small import model, tokenizer, translator

import llmwright as lw
from llmwright import families
from llmwright.checkpoint import directory
from llmwright.checkpoint.files import point
from llmwright.model.build import new


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
    shown = repr(loaded)  # what a notebook shows: a line, not every layer
    assert str(model_dir) in shown and "(decoder)" in shown and "parameters" in shown and len(shown) < 250
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
    with pytest.raises(lw.RequestError, match="no option heat"):
        lw.generate(loaded, "x", heat=3)
    with pytest.raises(lw.RequestError, match="top_p 3"):
        lw.generate(loaded, "x", top_p=3)
    with pytest.raises(lw.RequestError, match="float16"):
        lw.load(model_dir, dtype="float16")


def test_an_end_and_words_that_generation_config_adds_are_kept(model_dir):
    """Llama 3 has several end tokens, Marian forbids its padding."""
    file = model_dir / "generation_config.json"
    free = lw.load(model_dir).generate("import os", max_tokens=8, temperature=0)
    at = max(i for i in range(len(free.ids)) if free.ids[i] not in free.ids[:i])  # where a token comes for the first time
    file.write_text(json.dumps({"eos_token_id": [0, free.ids[at]], "bad_words_ids": [[free.ids[0]]], "top_p": 0.1}))
    loaded = lw.load(model_dir)
    assert loaded.stop_tokens == (0, free.ids[at]) and loaded.bad_words == ((free.ids[0],),)
    assert loaded.generate("import os", max_tokens=8, temperature=0).ids[0] != free.ids[0]
    file.write_text(json.dumps({"eos_token_id": free.ids[at], "bad_words_ids": [[10**6], "x", []]}))
    short = lw.load(model_dir).generate("import os", max_tokens=8, temperature=0)
    assert short.ids == free.ids[: at + 1] and short.finish_reason == "stop"
    file.write_text("{")
    with pytest.raises(lw.RequestError, match="generation_config.json: not valid JSON"):
        lw.load(model_dir)


def test_several_texts_come_as_a_list_and_one_as_itself(model_dir):
    loaded = lw.load(model_dir)
    assert isinstance(loaded.generate("x", max_tokens=2), lw.Generation)
    assert len(loaded.generate("x", max_tokens=2, n=3)) == 3
    assert len(lw.generate(loaded, ["x", "y"], max_tokens=2, beams=3, n=2)) == 4
    assert lw.generate(loaded, "x", max_tokens=2, beams=3) == loaded.generate("x", max_tokens=2, beams=3).text


def test_an_encoder_decoder_is_greedy_unless_told_otherwise(tmp_path):
    directory.save(translator(), tmp_path / "t", tokenizer=tokenizer())
    loaded = lw.load(tmp_path / "t")
    greedy = lw.generate(loaded, "import os", max_tokens=9, temperature=0)
    assert {lw.generate(loaded, "import os", max_tokens=9) for _ in range(3)} == {greedy}
    assert lw.generate(loaded, "import os", max_tokens=9, temperature=5.0, seed=1) != greedy


def test_an_encoder_asked_to_write_says_what_it_can_do(tmp_path):
    config = families.read_config(dict(
        model_type="bert", vocab_size=tokenizer().vocab_size, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, architectures=["BertForMaskedLM"]))
    directory.save(new(config), tmp_path / "b", tokenizer=tokenizer())
    with pytest.raises(lw.RequestError, match="encoder: it reads text and writes none; it can embed"):
        lw.load(tmp_path / "b").generate("x")
