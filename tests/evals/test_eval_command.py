"""`llmwright eval` prints the same figures as the Python calls, of the text that was asked for."""

import json
import shutil

import pytest
import test_completions as case

from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.data.shards import DataDir
from llmwright.evals.perplexity import evaluate_split, evaluate_text


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    directory.save(case.make(), path, tokenizer=case.TOKENIZER)
    return path


split = case.split  # a data directory of standard library modules


def answer(capsys, *arguments) -> dict:
    assert run(["eval", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_text_files(model_dir, tmp_path, capsys):
    text = "import os\nGröße = 1\n" * 20
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    got = answer(capsys, model_dir, "--text", tmp_path / "a.py", "--context", 64, "--stride", 16)
    wanted = evaluate_text(case.make(), case.TOKENIZER, text, context=64, stride=16)
    assert {key: got[key] for key in wanted} == pytest.approx(wanted)
    assert got["stride"] == 16 and got["context"] == 64


def test_a_split_and_a_part_of_it(model_dir, split, capsys):
    path = split.directory.parent
    got = answer(capsys, model_dir, "--data", path, "--tokens", 2000)
    wanted = evaluate_split(case.make(), case.TOKENIZER, DataDir.open(path).split("test"), max_tokens=2000)
    assert got["tokens"] == 2000
    assert {key: got[key] for key in wanted} == pytest.approx(wanted)


def test_a_run_is_scored_on_its_own_data(model_dir, split, tmp_path, capsys):
    shutil.copytree(model_dir, tmp_path / "run" / "model")
    (tmp_path / "run" / "data").symlink_to(split.directory.parent)
    assert answer(capsys, tmp_path / "run", "--tokens", 500)["tokens"] == 500


def test_the_table_names_each_perplexity(model_dir, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("one two three\n" * 10)
    assert run(["eval", str(model_dir), "--text", str(tmp_path / "a.txt")]) == 0
    out, err = capsys.readouterr()
    for name in ("bits per byte", "perplexity per token", "perplexity per word", "perplexity per byte", "30 words"):
        assert name in out
    assert "scoring" in err and "scoring" not in out


def test_a_perplexity_without_bounds_is_inf_and_in_json_null(model_dir, tmp_path, capsys, monkeypatch):
    from llmwright.evals import perplexity

    real = perplexity.figures
    monkeypatch.setattr(perplexity, "figures", lambda nats, *counts: real(1e6 * nats, *counts))
    (tmp_path / "a.txt").write_text("one two three\n" * 10)
    got = answer(capsys, model_dir, "--text", tmp_path / "a.txt")
    assert all(got[f"perplexity_per_{what}"] is None for what in ("token", "word", "byte")) and got["bits_per_byte"] > 1e6
    assert run(["eval", str(model_dir), "--text", str(tmp_path / "a.txt")]) == 0
    assert "perplexity per byte    inf" in capsys.readouterr().out


def test_a_damaged_shard_is_named_and_not_scored(model_dir, split, tmp_path, capsys):
    shutil.copytree(split.directory.parent, tmp_path / "data")
    shard = next((tmp_path / "data" / "test").glob("*.tokens"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert run(["eval", str(model_dir), "--data", str(tmp_path / "data")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"{shard}: its checksum" in err


def test_wrong_requests(model_dir, split, tmp_path, capsys):
    files = {"latin.txt": "Größe".encode("latin-1"), "binary.txt": b"a\0b", "empty.txt": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data").mkdir()
    card = json.loads((split.directory.parent / "data.json").read_text())
    (tmp_path / "data" / "data.json").write_text(json.dumps({**card, "tokenizer": {"fingerprint": "another"}}))
    for arguments, said in (
        (["--text", tmp_path / "latin.txt"], "latin.txt: not UTF-8 at byte 2"),
        (["--text", tmp_path / "binary.txt"], "binary.txt: holds zero bytes"),
        (["--text", tmp_path / "empty.txt"], "too short"),
        (["--text", tmp_path / "none.txt"], "none.txt: no such file"),
        (["--text", tmp_path], "cannot be read"),
        ([], "say what to score"),
        (["--data", tmp_path / "data"], "another tokenizer"),
        (["--data", split.directory.parent, "--split", "tset"], "no split tset"),
        (["--data", split.directory.parent, "--device", "foo"], "device 'foo'"),
        (["--data", split.directory.parent, "--context", "9999"], "context 9999"),
        (["--data", split.directory.parent, "--tokens", "0"], "--tokens 0"),
        (["--data", split.directory.parent, "--text", "x"], "not both"),
    ):
        assert run(["eval", str(model_dir), *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and said in err and "Traceback" not in err, (arguments, err)
