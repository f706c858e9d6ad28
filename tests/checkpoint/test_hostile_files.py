"""Weight files that are damaged, lie, or want to run something: one clear line each, no memory taken, nothing run."""

import collections
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file, save_file

from llmwright import families
from llmwright.checkpoint import directory, pickles, safetensors_file
from llmwright.errors import RequestError
from llmwright.model.build import new

CONFIG = families.read_config({
    "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
})


@pytest.fixture
def model_dir(tmp_path):
    directory.save(new(CONFIG, seed=1), tmp_path / "m")
    return tmp_path / "m"


def refused(call, *said: str) -> str:
    with pytest.raises(RequestError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600, message
    for part in said:
        assert part in message, message
    return message


def header(text: bytes | dict | str, data: int = 0) -> bytes:
    text = text if isinstance(text, bytes) else json.dumps(text).encode() if isinstance(text, dict) else text.encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def entry(shape, begin, end, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# safetensors: the header

LIES = {
    "an empty file": (b"", "0 bytes"),
    "seven bytes": (b"1234567", "7 bytes"),
    "a header longer than the file": (struct.pack("<Q", 100) + b"{}", "said to be 100 bytes long and the file has 10"),
    "the largest length": (b"\xff" * 8 + b"{}", "said to be 18,446,744,073,709,551,615 bytes"),
    "another file": (b"PK\x03\x04 some archive or other", "cut short, or no safetensors file"),
    "no JSON": (header("{nonsense"), "not JSON"),
    "not UTF-8": (header(b'{"\xff": 1}'), "not JSON"),
    "no table": (header("[1, 2]"), "not a table of tensors"),
    "nesting without end": (header("[" * 100_000), "not JSON"),
    "a number of many digits": (header('{"a": ' + "9" * 10_000 + "}"), "not JSON"),
    "an entry that is no table": (header({"a": 3}), "a has no proper dtype"),
    "an entry without a shape": (header({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, 4), "a has no proper dtype"),
    "a shape that is no list": (header({"a": entry("x", 0, 4)}, 4), "no proper"),
    "a shape with half numbers": (header({"a": entry([0.5], 0, 4)}, 4), "no proper"),
    "a shape with true": (header({"a": entry([True], 0, 4)}, 4), "no proper"),
    "a negative shape": (header({"a": entry([-1, -1], 0, 4)}, 4), "no proper"),
    "a shape of too many dimensions": (header({"a": entry([1] * 1000, 0, 4)}, 4), "no proper"),
    "three offsets": (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}}, 4), "no proper"),
    "an unknown dtype": (header({"a": entry([1], 0, 4, "Q4")}, 4), "unknown dtype Q4"),
    "an endless dtype": (header({"a": entry([1], 0, 4, "Q" * 10_000)}, 4), "unknown dtype QQQ"),
    "an end before the begin": (header({"a": entry([1], 4, 0)}, 4), "bytes 4 to 0"),
    "offsets outside the file": (header({"a": entry([2], 0, 8)}, 4), "bytes 0 to 8 of 4: the file is cut short"),
    "offsets far outside": (header({"a": entry([2**40], 0, 2**42)}, 4), "cut short or damaged"),
    "a shape of more numbers than bytes": (header({"a": entry([3], 0, 8)}, 8), "takes 12 bytes, and has 8"),
    "a shape whose product overflows": (header({"a": entry([2**62, 4], 0, 0)}), "takes"),
    "two tensors in one place": (
        header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12), "b lies over a"),
    "the same place twice": (header({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, 8), "b lies over a"),
    "a hole": (header({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12), "4 bytes before b belong to no tensor"),
    "bytes left over": (header({"a": entry([1], 0, 4)}, 12), "8 bytes at its end belong to no tensor"),
    "a name twice": (
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
               '"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', 8), "names a twice"),
    "a name without end": (header({"a" * 100_000: 3}), "aaa…"),
    "half a byte": (header({"a": entry([1], 0, 0, "F4")}), "takes 1 bytes, and has 0"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_header_that_lies(what, model_dir):
    content, said = LIES[what]
    (model_dir / "model.safetensors").write_bytes(content)
    refused(lambda: directory.load(model_dir), "model.safetensors: not a readable safetensors file: ", said)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_damage_loads_equal_or_is_refused(model_dir, data):
    """One byte changed, or a part cut out, anywhere: never a crash, never another error, never other shapes."""
    original = model_dir / "original"
    if not original.exists():
        (model_dir / "model.safetensors").rename(original)
    content = bytearray(original.read_bytes())
    at = data.draw(st.integers(0, 2500) | st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] = data.draw(st.integers(0, 255))
    else:
        del content[at : at + data.draw(st.integers(1, 3000))]
    (model_dir / "model.safetensors").write_bytes(content)
    try:
        loaded = directory.load(model_dir)
    except RequestError as error:
        assert "\n" not in str(error) and len(str(error)) < 900
    else:
        assert [p.shape for p in loaded.parameters()] == [p.shape for p in new(CONFIG).parameters()]


def test_what_the_library_writes_is_read_whatever_the_dtype_and_padding(tmp_path):
    """The library is the oracle: same names, same numbers, from a header of any length too."""
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(2.5),
               "none": torch.empty(0, 4), "d": torch.arange(5, dtype=torch.float16), "e": torch.ones(2).double()}
    save_file({**tensors, "ids": torch.arange(3)}, tmp_path / "f", metadata={"format": "pt", "note": "é" * 1000})
    for spaces in range(9):  # writers need not pad: data may begin at any byte
        content = (tmp_path / "f").read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        text, data = content[8 : 8 + length] + b" " * spaces, content[8 + length :]
        (tmp_path / "g").write_bytes(struct.pack("<Q", len(text)) + text + data)
        found = {s.name: s for s in safetensors_file.stored(tmp_path / "g")}
        assert found.keys() == load_file(tmp_path / "g").keys() and not found["ids"].floating
        for name, tensor in tensors.items():
            assert torch.equal(found[name].read(torch.float32), tensor) and found[name].read(torch.float32).dtype == tensor.dtype


def test_a_weight_changed_in_memory_does_not_change_the_file(model_dir):
    before = (model_dir / "model.safetensors").read_bytes()
    model = directory.load(model_dir)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    assert (model_dir / "model.safetensors").read_bytes() == before


def test_a_model_saved_over_the_files_it_is_mapped_from_is_whole(model_dir):
    model = directory.load(model_dir)
    with torch.no_grad():
        model.embed.weight.add_(1)
    directory.save(model, model_dir)
    again = directory.load(model_dir)
    for (name, a), b in zip(again.named_parameters(), model.parameters()):
        assert torch.equal(a, b), name


# shards

def sharded(model_dir: Path, index=None) -> dict:
    """The model in two files; `index` changes the weight map."""
    tensors = load_file(model_dir / "model.safetensors")
    (model_dir / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[:9], names[9:]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, model_dir / file)
        weight_map |= dict.fromkeys(part, file)
    (index or (lambda m: None))(weight_map)
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_shards_whose_index_lies(model_dir):
    name = "model.norm.weight"
    weight_map = sharded(model_dir)
    directory.load(model_dir)
    other = next(file for file in weight_map.values() if file != weight_map[name])
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**weight_map, name: other}}))
    refused(lambda: directory.load(model_dir), other, name, "says that it is in this file")
    (model_dir / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {**weight_map, "invented": weight_map[name]}}))
    refused(lambda: directory.load(model_dir), "invented is missing")
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (model_dir / other).unlink()
    refused(lambda: directory.load(model_dir), f"{other} is missing", "model.safetensors.index.json names it")


def test_a_weight_in_two_shards(model_dir):
    weight_map = sharded(model_dir)
    files = sorted(set(weight_map.values()))
    tensors = load_file(model_dir / files[0])
    tensors["model.norm.weight"] = torch.zeros(16)
    save_file(tensors, model_dir / files[0])
    refused(lambda: directory.load(model_dir), "model.norm.weight is there twice", *files)


# pickles

class Evil:
    """Unpickled by a reader that runs what it is told, this makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def state(model_dir: Path) -> dict:
    return load_file(model_dir / "model.safetensors")


def only_pickle(model_dir: Path, value, **options) -> Path:
    (model_dir / "model.safetensors").unlink(missing_ok=True)
    torch.save(value, model_dir / "pytorch_model.bin", **options)
    return model_dir / "pytorch_model.bin"


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "PyTorch before 1.6"])
def test_weights_in_a_plain_pickle_are_read_and_equal(model_dir, archive):
    wanted = directory.load(model_dir).state_dict()
    only_pickle(model_dir, collections.OrderedDict(state(model_dir)), _use_new_zipfile_serialization=archive)
    for name, tensor in directory.load(model_dir).state_dict().items():
        assert torch.equal(tensor, wanted[name])


def test_weights_in_pickled_shards_are_read(model_dir):
    tensors = state(model_dir)
    only_pickle(model_dir, {}).unlink()
    weight_map = {}
    for i, part in enumerate((list(tensors)[:9], list(tensors)[9:]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        torch.save({n: tensors[n] for n in part}, model_dir / file)
        weight_map |= dict.fromkeys(part, file)
    (model_dir / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(directory.load(model_dir).embed.weight, tensors["model.embed_tokens.weight"])


def test_safetensors_are_read_and_the_pickle_beside_them_is_not_opened(model_dir):
    (model_dir / "pytorch_model.bin").write_bytes(b"not even a pickle")
    directory.load(model_dir)


@pytest.mark.parametrize("how", ["archive", "old", "plain pickle", "among the weights"])
def test_a_pickle_that_holds_code_is_refused_and_the_code_never_runs(model_dir, tmp_path, how):
    mark = tmp_path / "it-ran"
    file = model_dir / "pytorch_model.bin"
    if how == "plain pickle":
        only_pickle(model_dir, {})
        file.write_bytes(pickle.dumps(Evil(mark)))
    elif how == "among the weights":
        only_pickle(model_dir, {**state(model_dir), "extra": Evil(mark)})
    else:
        only_pickle(model_dir, Evil(mark), _use_new_zipfile_serialization=how == "archive")
    said = refused(lambda: directory.load(model_dir), "pytorch_model.bin: not read", "could run code", "safetensors")
    assert "system" in said or how == "plain pickle"
    assert not mark.exists()
    # and the trap itself is real: a reader that trusts it falls in
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def test_a_pickle_that_is_damaged_or_no_table_of_weights(model_dir):
    file = only_pickle(model_dir, state(model_dir)) if (model_dir / "model.safetensors").exists() else None
    content = file.read_bytes()
    for damaged in (b"", b"PK\x03\x04", content[: len(content) // 2], b"nonsense", content[:-200]):
        file.write_bytes(damaged)
        refused(lambda: directory.load(model_dir), "pytorch_model.bin: not")
    for value, said in (
        ([torch.ones(2)], "not a table of weights by name but a list"), ({1: torch.ones(2)}, "not a table"),
        ({"a": 3}, "a is no plain tensor but a int"), ({"a": torch.eye(3).to_sparse()}, "no plain tensor"),
    ):
        only_pickle(model_dir, value)
        refused(lambda: directory.load(model_dir), said)


def test_a_few_numbers_cannot_pose_as_a_large_table(model_dir):
    only_pickle(model_dir, {"a": torch.ones(1).expand(10**6, 10**6)})
    refused(lambda: directory.load(model_dir), "a is said to have shape [1000000, 1000000]; the file does not hold so")


def test_a_pickle_whose_archive_lacks_or_shortens_its_numbers(model_dir):
    file = only_pickle(model_dir, {"a": torch.ones(1000)})
    for change in (lambda name, data: None, lambda name, data: data[:10]):
        changed = model_dir / "changed.bin"
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as made:
            for item in old.namelist():
                data = change(item, old.read(item)) if "/data/" in item else old.read(item)
                if data is not None:
                    made.writestr(item, data)
        refused(lambda: pickles.stored(changed), "changed.bin")


# a repository's own code

def test_code_in_a_model_directory_is_never_run(model_dir, tmp_path):
    mark = tmp_path / "it-ran"
    for name in ("modeling_own.py", "configuration_own.py", "__init__.py", "tokenization_own.py"):
        (model_dir / name).write_text(f"open({str(mark)!r}, 'w')")
    config = json.loads((model_dir / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    (model_dir / "config.json").write_text(json.dumps(config))
    directory.load(model_dir)
    (model_dir / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    refused(lambda: directory.load(model_dir), "'own' is not supported", "llama", "auto_map) is never run")
    assert not mark.exists()


# memory

PEAK = """
import json, os, struct, sys, torch
from pathlib import Path
from llmwright.checkpoint import directory
from llmwright.errors import RequestError
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
def load(path, **options):
    try:
        directory.load(path, **options)
    except RequestError as error:
        print(str(error)[-150:], file=sys.stderr)
def header(text, data=0):
    return struct.pack("<Q", len(text)) + text + bytes(data)
before = 0
"""


def peaks(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", PEAK + code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here to read the peak from")


@needs_proc
def test_a_hostile_file_takes_no_memory(model_dir, tmp_path):
    """Headers that claim terabytes, bombs of small numbers, and a configuration that calls for more than there is: less
    than ten times the file, whatever is claimed."""
    code = f"""
m = Path({str(model_dir)!r}); f = m / "model.safetensors"
load(m)
before = peak()
tera = {{"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}
f.write_bytes(header(json.dumps({{"model.embed_tokens.weight": tera}}).encode(), 100)); load(m)
for bomb in (b"0,", b"[],", b"{{}},", b'"",'):
    text = b'{{"a":{{"dtype":"F32","shape":[' + bomb * (4_000_000 // len(bomb)) + b'0],"data_offsets":[0,0]}}}}'
    f.write_bytes(header(text)); load(m)
f.write_bytes(struct.pack("<Q", 31_000_000) + b"{{}}"); os.truncate(f, 31_000_008); load(m)
config = json.loads((m / "config.json").read_text())
f.write_bytes(header(b"{{}}"))
for key in ("vocab_size", "hidden_size", "intermediate_size"):
    (m / "config.json").write_text(json.dumps({{**config, key: 2**30}})); load(m)
print(peak() - before)
"""
    assert peaks(code)[0] < 25_000  # KB


@needs_proc
@pytest.mark.parametrize("layers, stored, wanted, factor", [
    (1, "bfloat16", "float32", 1.3),
    pytest.param(9, "float32", "float32", 1.05, marks=pytest.mark.slow),
    pytest.param(9, "bfloat16", "float32", 1.1, marks=pytest.mark.slow),
    pytest.param(9, "float32", "bfloat16", 1.2, marks=pytest.mark.slow),
    pytest.param(9, "bfloat16", "bfloat16", 1.1, marks=pytest.mark.slow),
])
def test_loading_takes_the_weights_once(tmp_path, layers, stored, wanted, factor):
    """500 MB of float32 (a fifth of it in the first case): the peak above what PyTorch itself takes, against the
    weights as they are held then."""
    code = f"""
from llmwright import families
from llmwright.model.build import build
config = families.read_config(dict(model_type="llama", vocab_size=8000, hidden_size=1024, num_hidden_layers={layers},
    num_attention_heads=16, intermediate_size=2816, max_position_embeddings=512))
with torch.device("meta"):
    model = build(config)
weights = {{n: torch.full(p.shape, 0.01, dtype=torch.{stored}) for n, p in model.named_parameters()}}
directory.save(model, {str(tmp_path / "m")!r}, weights=weights)
"""
    peaks(code)
    code = f"""
before = peak()
model = directory.load({str(tmp_path / "m")!r}, dtype=torch.{wanted})
with torch.no_grad():
    sum(p.sum().item() for p in model.parameters())  # touch all that is mapped
print(peak() - before, sum(p.nbytes for p in model.parameters()) // 1024)
"""
    taken, weights = peaks(code)
    print(f"{stored} -> {wanted}: {weights / 1000:.0f} MB of weights, {taken / weights:.3f} times that taken")
    assert weights > layers * (25_000 if wanted == "bfloat16" else 50_000)
    assert taken < factor * weights, f"{taken / weights:.2f} times the weights"
