"""A GGUF file gives the model that was put into it; a damaged or hostile one gets one clear line, and costs nothing."""

import re
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import fields
from pathlib import Path

import gguf as peer
import gguf_case
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

import llmwright as lw
from llmwright.checkpoint import directory, gguf, gguf_architectures, gguf_names, gguf_write
from llmwright.checkpoint.gguf_architectures import ARCHITECTURES
from llmwright.errors import RequestError

@pytest.mark.parametrize("kind, dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_halves_are_read_as_they_are(kind, dtype, tmp_path):
    model = gguf_case.ours("gemma2", tmp_path / "m")
    gguf_write.save(model, tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(), kind=kind)
    again = dict(gguf.load(tmp_path / "x.gguf")[0].named_parameters())
    for name, p in model.named_parameters():
        assert again[name].dtype == torch.float32
        torch.testing.assert_close(again[name], p.to(dtype).float() if p.ndim > 1 else p, rtol=0, atol=1e-6)


def test_blocks_are_held_in_bfloat16_where_asked(tmp_path):
    model = gguf_case.ours("qwen3", tmp_path / "m")
    gguf_write.save(model, tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(), kind="f32")
    wanted = directory.load(tmp_path / "m", dtype=torch.bfloat16).state_dict()
    again = gguf.load(tmp_path / "x.gguf", dtype=torch.bfloat16)[0].state_dict()
    assert wanted.keys() == again.keys()
    assert all(torch.equal(again[name], wanted[name]) and again[name].dtype == wanted[name].dtype for name in wanted)


@pytest.mark.parametrize("case", ["llama", "llama 3", "mistral", "mixtral", "gemma3", "gpt2", "bloom", "falcon 40b"])
def test_nothing_of_the_configuration_is_lost_but_what_serves_training(case, tmp_path):
    config = gguf_case.ours(case, tmp_path / "m").config
    model = directory.load(tmp_path / "m")
    gguf_write.save(model, tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer(), kind="f32")
    again = gguf.load(tmp_path / "x.gguf")[0].config
    lost = {f.name for f in fields(config) if getattr(config, f.name) != getattr(again, f.name)}
    assert lost <= {"init_std", "special_tokens", "experts", "residual_dropout", "embedding_dropout", "attention",
                    "init_residual_scale"}
    assert again.attention.head_dim == config.attention.head_dim and again.attention.scale == config.attention.scale


def test_llama3s_scaling_is_found_again_in_what_it_does_to_the_frequencies(tmp_path):
    gguf_write.save(gguf_case.ours("llama 3", tmp_path / "m"), tmp_path / "x.gguf", tokenizer=gguf_case.tokenizer())
    assert gguf.read(tmp_path / "x.gguf").config["rope_parameters"] == {
        "rope_theta": 300.0, "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weight_names_are_those_of_llama_cpps_converter(arch):
    number = next(n for n, name in peer.MODEL_ARCH_NAMES.items() if name == arch)
    table = peer.get_tensor_name_map(number, 3)
    a = ARCHITECTURES[arch]
    for stem, theirs in (a.names(True) | a.names(False) if callable(a.names) else a.names).items():
        theirs = theirs.replace("{i}", "2").replace("model.layers.2.block_sparse_moe.experts.{e}",
                                                    "layers.2.feed_forward.experts")  # as it calls all experts together
        found = table.get_name(theirs) or table.get_name(theirs.removeprefix("transformer."))  # as it does for BLOOM
        assert found == stem.replace("{i}", "2")


def test_a_head_of_four_channels_worked_by_hand():
    """Published: first channels of both pairs, then the second ones; in the file pair after pair."""
    change, c = gguf_names.pairs("h"), {"h": 1}
    rows = torch.tensor([[10.0], [20.0], [11.0], [21.0]])
    assert change.do(rows, c).flatten().tolist() == [10, 11, 20, 21]
    assert change.undo(change.do(rows, c), c).equal(rows)


def test_queries_keys_and_values_of_two_groups_worked_by_hand():
    change, c = gguf_names.grouped("h", "k"), {"h": 4, "k": 2}
    rows = torch.tensor([1.0, 2, 11, 21, 3, 4, 12, 22])  # q q k v, q q k v
    assert change.do(rows, c).tolist() == [1, 2, 3, 4, 11, 12, 21, 22]
    assert change.undo(change.do(rows, c), c).equal(rows)


# the real one


def test_smollm2_answers(smollm2):
    model = lw.load(smollm2)
    assert (model.model.config.n_layers, model.model.config.positions.theta, model.model.config.norm.eps) == (
        30, 100_000.0, 1e-5)
    ids = model.tokenizer.encode("The capital of France is")
    from llmwright.engine.generate import generate
    from llmwright.engine.sampler import Sampling

    result = generate(model.model, model.tokenizer, [ids], max_tokens=3, sampling=Sampling(temperature=0.0))[0]
    assert result.text.startswith(" Paris.")
    assert "<|im_start|>" in gguf.read(smollm2).chat_template


MEMORY = """
import sys, torch
from llmwright.checkpoint import gguf
from llmwright.engine import language_model

def kilobytes(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])

before = kilobytes("VmRSS")
model, tokenizer = gguf.load(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
print(1024 * (kilobytes("VmHWM") - before), sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_the_memory_of_the_loaded_weights_and_little_more(smollm2, dtype):
    done = subprocess.run([sys.executable, "-c", MEMORY, smollm2, dtype], capture_output=True, text=True, check=True)
    peak, weights = map(int, done.stdout.split())
    assert peak < 1.3 * weights, f"{peak / weights:.2f}"


# damaged and hostile files


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("gguf")
    gguf_write.save(gguf_case.ours("llama tied, wide heads", folder / "m"), folder / "x.gguf",
                    tokenizer=gguf_case.tokenizer(), kind="q8_0")
    return (folder / "x.gguf").read_bytes()


def refused(path, data: bytes, *said: str) -> str:
    file = path / "x.gguf"
    file.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(RequestError) as caught:
        gguf.load(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700 and str(file) in message
    assert peak < 20 * len(data) + 5_000_000
    for part in said:
        assert part in message, message
    return message


def test_what_is_no_gguf_file(tmp_path):
    refused(tmp_path, b"", "empty")
    refused(tmp_path, b"{}", "does not begin with GGUF")
    refused(tmp_path, b"GGUF", "cut short")
    with pytest.raises(RequestError, match="cannot be read"):
        gguf.load(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("version, said", [(1, "version 1"), (4, "version 4"), (3 << 24, "big-endian")])
def test_versions_that_are_not_read(tmp_path, whole, version, said):
    refused(tmp_path, whole[:4] + struct.pack("<I", version) + whole[8:], said)


def test_a_file_cut_short_anywhere(tmp_path, whole):
    for keep in [5, 8, 20, 24, 30, 40, 100, 1000, 3000, 8000, len(whole) // 2, len(whole) - 1]:
        message = refused(tmp_path, whole[:keep])
        assert re.search("cut short|more than|calls for|past the end", message), message


def test_counts_that_lie(tmp_path, whole):
    refused(tmp_path, whole[:8] + struct.pack("<Q", 2**60) + whole[16:], "tensors, more than")
    refused(tmp_path, whole[:16] + struct.pack("<Q", 2**60) + whole[24:], "metadata entries, more than")
    refused(tmp_path, whole[:24] + struct.pack("<Q", 2**62) + whole[32:], "metadata key", "65,535")


def entries(*pairs: tuple[str, bytes], tensors: bytes = b"", count: int = 0) -> bytes:
    body = b"".join(struct.pack("<Q", len(key)) + key.encode() + value for key, value in pairs)
    return b"GGUF" + struct.pack("<IQQ", 3, count, len(pairs)) + body + tensors


def tensor(name: str, shape: tuple, kind: int = 0, offset: int = 0) -> bytes:
    return (struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
            + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset))


@pytest.mark.parametrize("value, said", [
    (struct.pack("<IQ", 8, 2**63), "calls for"),  # a text longer than the file
    (struct.pack("<I", 77), "type 77"),
    (struct.pack("<IIQ", 9, 8, 2**40), "calls for"),  # an array of texts
    (struct.pack("<IIQ", 9, 4, 2**61), "calls for"),  # and of numbers
    (struct.pack("<IIQ", 9, 9, 1), "arrays hold numbers or texts"),
    (struct.pack("<IQ", 8, 2) + b"\xff\xfe", "not UTF-8"),
    (struct.pack("<IIQQ", 9, 8, 1, 2**63), "past the end"),
    (struct.pack("<IIQQ", 9, 8, 1, 2) + b"\xff\xfe", "not UTF-8"),
], ids=range(8))
def test_metadata_that_lies(tmp_path, value, said):
    refused(tmp_path, entries(("k", value)), said)


@pytest.mark.parametrize("infos, said", [
    ([tensor("a", (32,), kind=99)], "number 99"),
    ([tensor("a", (32,), kind=16)], "IQ2_XXS"),
    ([tensor("a", (33,), kind=8)], "multiple of 32"),
    ([tensor("a", (0,))], "none 0"),
    ([tensor("a", (2**40, 2**40))], "reaches to byte"),
    ([tensor("a", (8,), offset=3)], "not a multiple of 32"),
    ([tensor("a", (8,), offset=2**62)], "reaches to byte"),
    ([tensor("a", (1,) * 9)], "9 dimensions"),
    ([tensor("a", ())], "0 dimensions"),
    ([tensor("a", (8,)), tensor("a", (8,), offset=32)], "there twice"),
    ([tensor("a", (16,)), tensor("b", (16,), offset=32)], "inside the one before it"),
], ids=range(11))
def test_tensors_that_lie(tmp_path, infos, said):
    data = entries(tensors=b"".join(infos), count=len(infos))
    refused(tmp_path, data + bytes(-len(data) % 32) + bytes(128), said)


def test_a_key_given_twice_and_an_alignment_that_is_none(tmp_path):
    number = struct.pack("<II", 4, 7)
    refused(tmp_path, entries(("k", number), ("k", number)), "there twice")
    refused(tmp_path, entries(("general.alignment", number)), "power of two")


def changed(whole: bytes, **values) -> bytes:
    """The file with values of its metadata replaced, written by ggml's own package."""
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder) / "old.gguf", Path(folder) / "new.gguf"
        old.write_bytes(whole)
        reader = peer.GGUFReader(old)
        writer = peer.GGUFWriter(new, values.pop("architecture", "llama"))
        drop = values.pop("drop", ())
        for key, found in reader.fields.items():
            if not key.startswith("GGUF.") and key != "general.architecture" and key not in drop:
                gguf_write._entry(writer, key, values.pop(key.replace(".", "__"), found.contents()))
        for key, value in values.items():
            gguf_write._entry(writer, key.replace("__", "."), value)
        for t in reader.tensors:
            if t.name not in drop:
                writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return new.read_bytes()


@pytest.mark.parametrize("change, said", [
    (dict(architecture="mamba"), ["'mamba' is not supported", "llama", "gemma3"]),
    (dict(drop=["blk.1.ffn_up.weight"]), ["missing", "model.layers.1.mlp.up_proj.weight"]),
    (dict(drop=["token_embd.weight"]), ["token_embd.weight"]),
    (dict(drop=["llama.block_count"]), ["llama.block_count"]),
    (dict(llama__block_count="two"), ["llama.block_count is 'two'", "whole number"]),
    (dict(llama__block_count=1), ["not part of this architecture", "layers.1"]),
    (dict(llama__attention__head_count=3), ["n_heads 3"]),
    (dict(llama__attention__head_count=8), ["q_proj"]),
    (dict(llama__attention__head_count=0), []),
    (dict(llama__attention__head_count_kv=[2, 1]), ["head_count_kv", "same for all layers"]),
    (dict(llama__embedding_length=128), ["shape"]),
    (dict(llama__rope__dimension_count=16), ["dimension_count"]),
    (dict(llama__rope__scaling__type="longrope"), ["longrope", "linear"]),
    (dict(split__count=3), ["3 parts"]),
    (dict(tokenizer__ggml__model="t5"), ["'t5'"]),
    (dict(tokenizer__ggml__pre="klingon"), ["klingon", "llama-bpe"]),
    (dict(tokenizer__ggml__token_type=[1, 1]), ["token_type"]),
    (dict(tokenizer__ggml__bos_token_id=9999), ["bos_token_id is 9999"]),
    (dict(tokenizer__ggml__merges=["a b c"]), ["merge 1"]),
])
def test_what_does_not_fit_together_is_named(tmp_path, whole, change, said):
    refused(tmp_path, changed(whole, **change), *said)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 12_000), change=st.binary(min_size=1, max_size=9))
def test_any_damage_ends_in_a_model_or_one_line(tmp_path, whole, place, change):
    file = tmp_path / "x.gguf"
    file.write_bytes(whole[:place] + change + whole[place + len(change):])
    try:
        gguf.load(file)
    except RequestError as error:
        assert "\n" not in str(error) and len(str(error)) < 700


def test_the_architectures_of_the_families_are_told(tmp_path):
    with pytest.raises(RequestError, match="palm family cannot be written as GGUF; these can: llama"):
        gguf_architectures.of_config({"model_type": "palm"})
