"""What is written as GGUF is what ggml's own package reads, and llama.cpp gives the same greedy text with each
float type. Each architecture: tests/families/test_families_gguf.py."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import gguf as peer
import gguf_case
import numpy as np
import pytest
import torch
import transformers

import llmwright as lw
from llmwright import families
from llmwright.checkpoint import directory, gguf, gguf_write
from llmwright.checkpoint.files import disk_errors
from llmwright.cli import run
from llmwright.errors import RequestError, WorkError
from llmwright.families.names import to_published
from llmwright.model.build import new
from llmwright.progress import Progress


def test_llama_cpp_continues_each_float_type_as_we_do(tmp_path):
    jobs, wanted = [], {}
    for kind in ("f32", "f16", "bf16"):
        file = str(tmp_path / f"{kind}.gguf")
        gguf_write.save(gguf_case.ours("llama", tmp_path / "m"), file, tokenizer=gguf_case.tokenizer(), kind=kind)
        wanted[kind] = gguf_case.greedy(*gguf.load(file), 16)
        jobs.append((file, gguf_case.PROMPT, 16))
    assert dict(zip(wanted, gguf_case.llama_cpp(gguf_case.CONTINUE, jobs))) == wanted


@pytest.mark.parametrize("kind", gguf_write.FORMATS)
def test_ggmls_reader_finds_what_was_written(kind, tmp_path):
    model = gguf_case.ours("qwen2", tmp_path / "m")
    gguf_write.save(model, tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(), kind=kind, name="small")
    reader = peer.GGUFReader(tmp_path / "x.gguf")
    value = {key: field.contents() for key, field in reader.fields.items()}
    assert value["general.architecture"] == "qwen2" and value["general.name"] == "small"
    assert value["general.file_type"] == peer.LlamaFileType[
        {"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")]
    assert value["tokenizer.ggml.tokens"] == [gguf_case.tokenizer().token(i) for i in range(gguf_case.VOCABULARY)]
    assert value["tokenizer.chat_template"] == gguf_case.tokenizer().config["chat_template"]
    published = to_published(dict(model.named_parameters()), _rules(model))
    for t in reader.tensors:
        theirs = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
        for ours, name in (("attn_v", "self_attn.v_proj"), ("ffn_down", "mlp.down_proj")):
            theirs |= {f"blk.{i}.{ours}": f"model.layers.{i}.{name}" for i in (0, 1)}
        base, _, end = t.name.rpartition(".")
        if base not in theirs:
            continue
        weight = published[f"{theirs[base]}.{end}"].detach().numpy()
        stored = peer.quants.dequantize(t.data, t.tensor_type).reshape(weight.shape)
        if weight.ndim == 1:
            assert t.tensor_type.name == "F32" and np.array_equal(stored, weight)
            continue
        named = t.tensor_type.name.lower()
        assert named == ("q8_0" if kind == "q4_0" and base in ("output", "token_embd") else kind)
        spread = np.abs(weight).max()
        part = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 250, "q4_0": 1 / 7}[named]
        assert np.abs(stored - weight).max() <= part * spread


def _rules(model):
    return families.find(model.config.family).rules(model.config)


def test_rows_that_are_no_multiple_of_a_block_stay_float16():
    shapes = {"blk.0.ffn_down.weight": (64, 80), "blk.0.attn_q.weight": (96, 64)}
    assert {n: gguf_write._format(n, s, "q8_0") for n, s in shapes.items()} == {
        "blk.0.ffn_down.weight": 1, "blk.0.attn_q.weight": 8}


def test_a_model_can_be_written_again_from_what_was_read(tmp_path):
    gguf_write.save(gguf_case.ours("mixtral", tmp_path / "m"), tmp_path / "a.gguf", tokenizer=gguf_case.tokenizer(),
                    kind="q8_0", name="x")
    model, tokenizer = gguf.load(tmp_path / "a.gguf")
    gguf_write.save(model, tmp_path / "b.gguf", tokenizer=tokenizer, kind="q8_0", name="x")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_numbers_too_large_for_float16_are_said_and_nothing_is_left(tmp_path):
    model = gguf_case.ours("qwen2", tmp_path / "m")
    with torch.no_grad():
        model.blocks[1].feed_forward.up.weight[3, 4] = 70_000
    with pytest.raises(WorkError, match="blk.1.ffn_up.weight has numbers beyond float16's 65504; choose"):
        gguf_write.save(model, tmp_path / "out" / "x.gguf", tokenizer=gguf_case.tokenizer(), kind="f16")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here to play the full disk")
def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        with disk_errors(path):
            yield Path("/dev/full")

    monkeypatch.setattr(gguf_write, "new_file", full)
    with pytest.raises(WorkError, match=r"x\.gguf: the disk is full"):
        gguf_write.save(gguf_case.ours("qwen2", tmp_path / "m"), tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer())


@pytest.mark.parametrize("change, said", [
    (dict(activation="gelu"), "hidden_act silu"),
    (dict(family="palm"), "palm family cannot be written"),
])
def test_what_llama_cpp_cannot_compute_is_refused(tmp_path, change, said):
    config = gguf_case.ours("llama", tmp_path / "m").config
    if "activation" in change:
        config = replace(config, feed_forward=replace(config.feed_forward, activation="gelu"))
    else:
        config = families.read_config({
            "model_type": "palm", "vocab_size": 420, "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 32})
    with pytest.raises(RequestError, match=said):
        gguf_write.save(new(config), tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer())
    assert not (tmp_path / "x.gguf").exists()


def test_where_llama_cpp_computes_something_else_is_said(tmp_path):
    told = []
    progress = Progress()
    progress.say = told.append
    gguf_write.save(gguf_case.ours("mistral", tmp_path / "m"), tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(),
                    progress=progress)
    assert told == ["llama.cpp knows no window for this architecture: beyond 90 tokens its texts differ"]


# the command


@pytest.fixture
def model_dir(tmp_path):
    model = gguf_case.ours("llama", tmp_path / "theirs")
    directory.save(model, tmp_path / "m", tokenizer=gguf_case.tokenizer())
    return tmp_path / "m"


def test_export_goes_there_and_back(model_dir, tmp_path, capsys):
    assert run(["export", str(model_dir), "--type", "f32", "-o", str(tmp_path / "x.gguf"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": str(tmp_path / "x.gguf"), "to": "gguf", "type": "f32",
                    "bytes": (tmp_path / "x.gguf").stat().st_size}
    assert run(["export", str(tmp_path / "x.gguf"), "--to", "safetensors", "-o", str(tmp_path / "back")]) == 0
    first, again = lw.load(model_dir), lw.load(tmp_path / "back")
    for a, b in zip(first.model.parameters(), again.model.parameters()):
        assert torch.equal(a, b)
    text = "def naïve(x):  # 123\n    return '🙂'\n"
    assert first.tokenizer.encode(text) == again.tokenizer.encode(text)
    assert again.tokenizer.config["chat_template"] == first.tokenizer.config["chat_template"]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert theirs.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello"


def test_export_to_half_the_size(model_dir, tmp_path, capsys):
    assert run(["export", str(model_dir), "--to", "safetensors", "--type", "bf16", "-o", str(tmp_path / "h")]) == 0
    assert json.loads((tmp_path / "h" / "config.json").read_text())["dtype"] == "bfloat16"
    assert run(["info", str(tmp_path / "h")]) == 0 and "BF16" in capsys.readouterr().out


def test_a_template_beside_the_tokenizer_goes_into_the_file(model_dir, tmp_path):
    (model_dir / "chat_template.jinja").write_text("{{ messages }}")
    assert run(["export", str(model_dir), "-o", str(tmp_path / "x.gguf")]) == 0
    assert gguf.read(tmp_path / "x.gguf").chat_template == "{{ messages }}"


@pytest.mark.parametrize("arguments, said", [
    (["--to", "onnx"], "--to onnx is not known: it must be gguf or safetensors"),
    (["--type", "q2_k"], "--type q2_k cannot be written as gguf"),
    (["--to", "safetensors", "--type", "q8_0"], "cannot be written as safetensors"),
    (["--to", "safetensors", "--pre", "qwen2"], "belong to --to gguf"),
    (["--pre", "klingon"], "--pre 'klingon' is not known"),
])
def test_a_wrong_export_is_one_line(model_dir, tmp_path, arguments, said, capsys):
    assert run(["export", str(model_dir), "-o", str(tmp_path / "out"), *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_export_replaces_only_an_export(model_dir, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for out, to in (("notes.txt", "gguf"), ("folder", "gguf"), ("folder", "safetensors"), ("notes.txt", "safetensors"),
                    ("m", "safetensors")):
        assert run(["export", str(model_dir), "--to", to, "-o", str(tmp_path / out)]) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "folder" / "mine").exists()
    for _ in range(2):
        assert run(["export", str(model_dir), "-o", str(tmp_path / "x.gguf")]) == 0


def test_an_export_takes_nothing_that_is_not_its_own(model_dir, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "config.json").write_text('{"mine": 1}')
    (mixed / "thesis.tex").write_text("years of work")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "model").symlink_to(model_dir)
    before = (Path(model_dir) / "model.safetensors").read_bytes()
    for source, out, said in ((model_dir, mixed, "holds thesis.tex"), (run_dir, run_dir / "model", "that is the model itself"),
                              (run_dir, Path(model_dir), "that is the model itself"),
                              (run_dir, Path(model_dir).parent, "that is the model itself")):
        assert run(["export", str(source), "--to", "safetensors", "--type", "f16", "-o", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert (mixed / "thesis.tex").read_text() == "years of work" and (mixed / "config.json").read_text() == '{"mine": 1}'
    assert (Path(model_dir) / "model.safetensors").read_bytes() == before
    for _ in range(2):  # an export may replace an export
        assert run(["export", str(model_dir), "--to", "safetensors", "-o", str(tmp_path / "again")]) == 0


def test_how_a_model_is_to_be_used_goes_with_it(model_dir, tmp_path, capsys):
    from llmwright.engine.language_model import load

    told = {"eos_token_id": [0, 5, 7], "bad_words_ids": [[3], [4, 9]], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    (Path(model_dir) / "generation_config.json").write_text(json.dumps(told))
    assert run(["export", str(model_dir), "--to", "safetensors", "-o", str(tmp_path / "x")]) == 0
    one, other = load(model_dir), load(tmp_path / "x")
    assert set(one.stop_tokens) <= set(other.stop_tokens) and {0, 5, 7} <= set(other.stop_tokens)
    assert (one.bad_words, one.advice) == (other.bad_words, other.advice) == (((3,), (4, 9)), {"temperature": 0.6, "top_p": 0.9})


def test_info_tells_what_a_file_holds(model_dir, tmp_path, capsys):
    run(["export", str(model_dir), "-o", str(tmp_path / "x.gguf")])
    capsys.readouterr()
    assert run(["info", str(tmp_path / "x.gguf")]) == 0
    out = capsys.readouterr().out
    assert "llama" in out and "Q8_0+F32" in out and "in the file" in out
    assert run(["generate", str(tmp_path / "x.gguf"), "import", "--greedy", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("import")
