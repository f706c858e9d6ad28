"""`llmwright info` says what a path is, in about ten lines, from headers alone."""

import json

import pytest

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.model.build import new
from llmwright.tokens.train import train

TOKENIZER = train(["def f(x):\n    return x + 1\n" * 30], "bytes")
CONFIG = families.read_config({
    "model_type": "qwen3", "vocab_size": TOKENIZER.vocab_size, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48,
    "max_position_embeddings": 128, "tie_word_embeddings": True,
})


@pytest.fixture
def model_dir(tmp_path):
    directory.save(new(CONFIG), tmp_path / "m", tokenizer=TOKENIZER)
    return tmp_path / "m"


def answer(capsys, path) -> tuple[dict, list[str]]:
    assert run(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 14 and all(len(line) < 300 for line in lines)
    return found, lines


def test_a_model(model_dir, capsys):
    found, lines = answer(capsys, model_dir)
    count = sum(p.numel() for p in new(CONFIG).parameters())
    assert found["parameters"] == count == sum(found["parts"].values())
    assert (found["kind"], found["family"], found["context"], found["dtype"]) == ("model", "qwen3", 128, "F32")
    assert found["bytes"] == (model_dir / "model.safetensors").stat().st_size
    assert any(f"{count:,}" in line for line in lines)


SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 48, "max_position_embeddings": 256}


@pytest.mark.parametrize("config, said", [
    ({"model_type": "mixtral", **SMALL, "num_local_experts": 3}, "feed-forward 48 × 3 experts, 2 a token"),
    ({"model_type": "gemma2", **SMALL, "head_dim": 16, "sliding_window": 64},
     "256 tokens; 2 of 4 layers see a window of 64"),
    ({"model_type": "llama", **SMALL, "rope_scaling": {"type": "yarn", "factor": 4.0}},
     "1,024 tokens, yarn rope scaling from 256"),
    ({"model_type": "t5", "vocab_size": 60, "d_model": 32, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
      "d_kv": 8, "d_ff": 48}, "3 encoder and 2 decoder layers, 32 wide"),
    ({"model_type": "bert", "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
      "intermediate_size": 48}, "bert (encoder)"),
], ids=lambda value: value["model_type"] if isinstance(value, dict) else "")
def test_what_is_special_about_a_family(config, said, tmp_path, capsys):
    model = new(families.read_config(config))
    directory.save(model, tmp_path / "m")
    found, lines = answer(capsys, tmp_path / "m")
    assert any(said in line for line in lines), lines
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert (found["active_parameters"] < found["parameters"]) == (config["model_type"] == "mixtral")


def test_a_model_whose_tokenizer_cannot_be_used(model_dir, capsys):
    assert answer(capsys, model_dir)[0]["tokenizer_fault"] is None
    file = model_dir / "tokenizer.json"
    whole = file.read_text()
    more = json.loads(whole)
    more["model"]["vocab"]["unheard"] = TOKENIZER.vocab_size
    for content, said in ((whole[:-20], "not valid JSON"), ('{"a": 1}', "no model.vocab"),
                          (json.dumps(more), "more than the model's")):
        file.write_text(content)
        found, lines = answer(capsys, model_dir)
        (line,) = [line for line in lines if line.startswith("tokenizer ")]
        assert "tokenizer.json, which cannot be used: " in line and said in line and said in found["tokenizer_fault"]


def test_a_run(model_dir, tmp_path, capsys):
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / "step-9").mkdir(parents=True)
    (run_dir / "checkpoints" / "step-10").mkdir()
    records = [{"step": 1, "tokens": 100, "time": 1.0, "loss": 5.0}, {"step": 1, "val_loss": 4.0, "val_bpb": 2.0},
               {"step": 2, "tokens": 200, "time": 62.0, "loss": None}, {"step": 2, "val_loss": 4.5, "val_bpb": 2.2},
               {"step": 3, "tokens": 300, "time": 63.0, "loss": 3.0}]
    text = "".join(json.dumps(r) + "\n" for r in records) + '{"step": 4, "lo'  # killed while writing
    (run_dir / "metrics.jsonl").write_text(text)
    model_dir.rename(run_dir / "model")
    found, lines = answer(capsys, run_dir)
    assert (found["kind"], found["step"], found["loss"], found["tokens"]) == ("run", 3, 3.0, 300)
    assert (found["val_loss"], found["best_val_loss"], found["best_step"]) == (4.5, 4.0, 1)
    assert found["state"] == "stopped before its end" and found["checkpoints"] == ["step-9", "step-10"]
    (run_dir / "result.json").write_text("{\"steps\": 3}")
    assert answer(capsys, run_dir)[0]["state"] == "done"


def test_a_run_in_use_by_a_live_process(tmp_path, capsys):
    from llmwright.train.run import Run

    with Run(tmp_path / "run"):
        assert answer_state(capsys, tmp_path / "run").startswith("in use by process")
    assert answer_state(capsys, tmp_path / "run") == "stopped before its end"


def answer_state(capsys, path) -> str:
    assert run(["info", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["state"]


def test_a_data_directory(tmp_path, capsys):
    shard = {"documents": 3, "tokens": 50, "bytes": 200}
    card = {
        "vocab_size": 258, "bos_id": 0, "sources": {"notes": {"path": "/n", "bytes": 999}},
        "tokenizer": {"kind": "bytes"},
        "splits": {"train": {"shards": [shard, shard]}, "val": {"shards": [shard]}, "test": {"shards": []}},
    }
    (tmp_path / "data.json").write_text(json.dumps(card))
    found, lines = answer(capsys, tmp_path)
    assert found["splits"]["train"] == {"documents": 6, "tokens": 100, "bytes": 400}
    assert any("4.00 bytes a token" in line for line in lines)


def test_a_tokenizer(model_dir, capsys):
    found, lines = answer(capsys, model_dir / "tokenizer.json")
    assert found["kind"] == "tokenizer" and found["vocab_size"] == TOKENIZER.vocab_size
    assert found["specials"] == TOKENIZER.special_tokens and found["fingerprint"] == TOKENIZER.fingerprint


def test_what_is_none_of_them(model_dir, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data.json").write_text('{"vocab_size": 3, "bos_id": 0, "splits": {"train": 5}}')
    for path, said in (
        (tmp_path / "nowhere", "no such file"), (tmp_path / "empty", "neither a model"),
        (tmp_path / "notes.txt", "notes.txt"),
        (model_dir / "model.safetensors", "model directory"), (tmp_path / "bad", "data.json"),
    ):
        assert run(["info", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and said in err and "Traceback" not in err
    (model_dir / "model.safetensors").write_bytes(b"\xff" * 20)
    assert run(["info", str(model_dir)]) == 2
    assert "not a readable safetensors file" in capsys.readouterr().err
