"""A damaged or hostile model directory gets one clear line that names the file or the weight, and nothing else."""

import json
import struct

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmwright import families
from llmwright.checkpoint import directory
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


def refused(path, *said: str) -> None:
    with pytest.raises(RequestError) as caught:
        directory.load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for part in said:
        assert part in message


def rewrite(path, change) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def test_what_was_saved_is_loaded(model_dir):
    again = directory.load(model_dir)
    assert again.config == CONFIG and not again.training
    for name, p in new(CONFIG, seed=1).named_parameters():
        assert torch.equal(dict(again.named_parameters())[name], p)


def test_nothing_there(tmp_path):
    refused(tmp_path / "nowhere", "no such model directory")
    refused(tmp_path, "config.json")


def test_no_weights(model_dir):
    (model_dir / "model.safetensors").unlink()
    refused(model_dir, "model.safetensors is missing")


def test_weights_missing(model_dir):
    rewrite(model_dir, lambda t: [t.pop(f"model.layers.{i}.mlp.up_proj.weight") for i in range(2)])
    refused(model_dir, "missing", "model.layers.0.mlp.up_proj.weight")


def test_weights_left_over(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(24, 16)}))
    refused(model_dir, "not part of this architecture", "model.layers.2.mlp.up_proj.weight")


def test_weights_of_another_shape(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(16, 24)}))
    refused(model_dir, "model.layers.1.mlp.up_proj.weight", "[16, 24]", "[24, 16]")


def test_weights_of_another_rank(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.norm.weight": torch.ones(1, 16)}))
    refused(model_dir, "model.norm.weight", "[1, 16]")
    rewrite(model_dir, lambda t: t.update({"model.norm.weight": torch.tensor(1.0)}))
    refused(model_dir, "model.norm.weight")


def test_weights_that_are_whole_numbers(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.norm.weight": torch.ones(16, dtype=torch.int8)}))
    refused(model_dir, "model.norm.weight", "I8")


def test_a_configuration_that_disagrees_with_the_weights(model_dir):
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps({**config, "vocab_size": 41}))
    refused(model_dir, "[40, 16]", "[41, 16]")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file(model_dir, keep):
    file = model_dir / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    refused(model_dir, "model.safetensors", "not a readable safetensors file")


def test_a_header_that_lies_about_its_length(model_dir):
    file = model_dir / "model.safetensors"
    data = file.read_bytes()
    for length in (2**62, len(data) * 2, 7):
        file.write_bytes(struct.pack("<Q", length) + data[8:])
        refused(model_dir, "model.safetensors", "not a readable safetensors file")


def test_a_header_that_points_outside_the_file(model_dir):
    file = model_dir / "model.safetensors"
    header = {"model.norm.weight": {"dtype": "F32", "shape": [16], "data_offsets": [0, 10**12]}}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    refused(model_dir, "model.safetensors", "not a readable safetensors file")


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["b"]}}'])
def test_a_damaged_index(model_dir, index):
    (model_dir / "model.safetensors.index.json").write_text(index)
    refused(model_dir, "model.safetensors.index.json")


def test_an_index_cannot_reach_out_of_the_directory(model_dir, tmp_path):
    (model_dir / "model.safetensors").rename(tmp_path / "secret.safetensors")
    weight_map = {"model.norm.weight": "../secret.safetensors"}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(model_dir, "secret.safetensors is missing")


def test_a_model_with_absurdly_many_layers_is_refused_at_once(model_dir):
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**8}))
    refused(model_dir, "n_layers")


@torch.no_grad()
def test_shards_we_write_are_read_by_us_and_by_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "SHARD_BYTES", 4000)
    model = new(CONFIG, seed=2)
    directory.save(model, tmp_path / "m")
    files = sorted(p.name for p in (tmp_path / "m").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    ids = torch.arange(30)[None]
    wanted = model(ids)
    assert torch.equal(directory.load(tmp_path / "m")(ids), wanted)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(theirs(ids).logits, wanted, rtol=0, atol=1e-4)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * p.numel() for p in model.parameters())


def test_master_weights_are_written_in_place_of_the_models_own(tmp_path):
    model = new(CONFIG, seed=3)
    masters = {name: p.detach().clone() + 1e-6 for name, p in model.named_parameters()}
    directory.save(model.set_dtype(torch.bfloat16), tmp_path / "m", weights=masters)
    again = dict(directory.load(tmp_path / "m").named_parameters())
    assert all(torch.equal(again[name], masters[name]) for name in masters)
