"""In float32 our logits are transformers' within 1e-4, whichever of the two wrote the directory."""

import json

import pytest
import torch
import transformers
from oracle import CASES, make

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.families.shapes import shape
from llmwright.model.cache import KVCache
from llmwright.model.build import new
from llmwright.recipe import Model

TOLERANCE = dict(rtol=0, atol=1e-4)


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    theirs = make(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, directory.load(tmp_path / "theirs")


def ids(rows: int = 3, length: int = 48) -> torch.Tensor:
    return torch.randint(0, 131, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_equal_over_the_whole_context(both):
    theirs, ours = both
    wanted = theirs(ids()).logits
    assert wanted.std() > 0.5  # a distribution worth comparing
    torch.testing.assert_close(ours(ids()), wanted, **TOLERANCE)


@torch.no_grad()
def test_logits_equal_with_padding_on_the_left(both):
    theirs, ours = both
    input_ids, padding = ids(), torch.tensor([0, 7, 30])
    seen = torch.arange(48) >= padding[:, None]
    positions = (torch.arange(48) - padding[:, None]).clamp(min=0)
    wanted = theirs(input_ids, attention_mask=seen.long(), position_ids=positions).logits
    mask = (seen[:, None, :] | torch.eye(48, dtype=torch.bool))[:, None]
    torch.testing.assert_close(ours(input_ids, positions=positions, mask=mask)[seen], wanted[seen], **TOLERANCE)


@torch.no_grad()
def test_logits_equal_with_a_cache_filled_in_uneven_steps(both):
    theirs, ours = both
    input_ids = ids()
    cache = KVCache(ours.config, 3, 48)
    parts = [ours(part, cache=cache) for part in input_ids.split([11, 1, 1, 5, 30], dim=1)]
    assert cache.length == 48
    torch.testing.assert_close(torch.cat(parts, 1), theirs(input_ids).logits, **TOLERANCE)


@torch.no_grad()
def test_what_we_save_they_load_whole_and_with_the_same_logits(both, tmp_path):
    theirs, ours = both
    directory.save(ours, tmp_path / "ours")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert type(again) is type(theirs)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    torch.testing.assert_close(again.eval()(ids()).logits, theirs(ids()).logits, **TOLERANCE)
    for name, p in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], p), name


def test_gradients_equal(both):
    theirs, ours = both
    theirs.train(False)
    input_ids = ids(2, 20)
    for model in (theirs, ours):
        logits = model(input_ids)
        logits = logits if torch.is_tensor(logits) else logits.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()).backward()
    wanted = theirs.get_input_embeddings().weight.grad
    # a gradient sums over many paths in another order than theirs: relative to its largest entry
    assert (ours.embed.weight.grad - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_a_configuration_survives_the_way_there_and_back(both):
    _, ours = both
    written = json.loads(json.dumps(families.write_config(ours.config)))
    assert families.read_config(written) == ours.config


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@torch.no_grad()
def test_a_model_of_a_recipe_loads_in_transformers(family, tmp_path):
    config = shape(Model(family=family, d_model=48, n_layers=2, n_heads=3, context=32), 77, {"bos": 1, "eos": 1})
    ours = new(config, seed=5)
    directory.save(ours, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert theirs.config.eos_token_id == theirs.generation_config.eos_token_id == 1
    assert theirs.config.model_type == family
    input_ids = torch.arange(32)[None]
    torch.testing.assert_close(ours.eval()(input_ids), theirs(input_ids).logits, **TOLERANCE)
