"""In float32 our logits are transformers' within 1e-4, whichever of the two wrote the directory."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from number_tokenizer import Numbers
from oracle import CASES, make
from table import describe, record

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY
from llmwright.families.shapes import shape
from llmwright.model.cache import KVCache
from llmwright.model.build import build, new
from llmwright.recipe import Model

ROTARY = "decoder; rotary; RMSNorm"
describe("llama", "Llama 1 to 3, SmolLM2", "Touvron et al. 2023; Dubey et al. 2024",
         f"{ROTARY}; SwiGLU; grouped-query; rope scaling: linear, dynamic, YaRN, Llama 3's")
describe("mistral", "Mistral", "Jiang et al. 2023", f"{ROTARY}; SwiGLU; grouped-query; sliding window")
describe("mixtral", "Mixtral", "Jiang et al. 2024",
         f"{ROTARY}; sparse mixture of SwiGLU experts, balance and z losses; grouped-query; sliding window")
describe("qwen2", "Qwen2, Qwen2.5", "Yang et al. 2024",
         f"{ROTARY}; SwiGLU; grouped-query; biases on query, key, value; sliding window in later layers")
describe("qwen3", "Qwen3", "Yang et al. 2025", f"{ROTARY}; SwiGLU; grouped-query; norms on query and key heads")
describe("gemma", "Gemma", "Gemma team 2024", f"{ROTARY}; gated GELU; scaled embeddings; multi-query; tied embeddings")
describe("gemma2", "Gemma 2", "Gemma team 2024b",
         f"{ROTARY} before and after each part; gated GELU; scaled embeddings; grouped-query; capped scores and logits; "
         "window in every other layer")
describe("gemma3_text", "Gemma 3, text", "Gemma team 2025",
         f"{ROTARY} before and after each part; gated GELU; scaled embeddings; grouped-query; norms on query and key "
         "heads; window and another rotary base in five layers of six")
describe("gpt2", "GPT-2", "Radford et al. 2019",
         "decoder; learned positions; LayerNorm; GELU; biases; tied embeddings")

TOLERANCE = dict(rtol=0, atol=1e-4)
STEPS = [11, 1, 1, 5, 30]


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    theirs, folder = make(request.param), tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return theirs, directory.load(folder)


@pytest.fixture
def both(pair):
    forget(pair[0])
    return pair


@torch.no_grad()
def forget(theirs) -> None:
    """With dynamic scaling theirs keeps the frequencies of the longest text so far, until a short one comes."""
    theirs(ids(1, 1))


def ids(rows: int = 3, length: int = 48) -> torch.Tensor:
    return torch.randint(0, 131, (rows, length), generator=torch.Generator().manual_seed(1))


def close(ours, check: str, made: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(made, wanted, **TOLERANCE)
    record(ours.config.family, check, (made - wanted).abs().max())


def dynamic(ours) -> bool:
    """Whether a position's logits depend on how long the text is: keys in a cache were turned for a shorter one."""
    scaling = getattr(ours.config.positions, "scaling", None)
    return scaling is not None and scaling.kind == "dynamic"


@torch.no_grad()
def test_logits_equal_over_the_whole_context(both):
    theirs, ours = both
    wanted = theirs(ids()).logits
    assert wanted.std() > 0.5  # a distribution worth comparing
    close(ours, "logits", ours(ids()), wanted)


@torch.no_grad()
def test_every_part_that_is_there_matters(both):
    """Else a part that both forgot would pass."""
    ours = both[1]
    config, without = ours.config, {}
    if any(config.windows) and min(w for w in config.windows if w) < 48:
        without["windows"] = dict(windows=())
    if config.local_positions:
        without["local positions"] = dict(local_positions=None)
    if getattr(config.positions, "scaling", None):
        without["rope scaling"] = dict(positions=replace(config.positions, scaling=None))
    if config.attention.softcap:
        without["capped scores"] = dict(attention=replace(config.attention, softcap=None))
    if config.attention.scale:
        without["scale"] = dict(attention=replace(config.attention, scale=None))
    if config.head.softcap:
        without["capped logits"] = dict(head=replace(config.head, softcap=None))
    for part, change in without.items():
        other = build(replace(config, **change)).eval()
        other.load_state_dict(ours.state_dict())
        assert (other(ids()) - ours(ids())).abs().max() > 0.02, part


@torch.no_grad()
def test_logits_equal_with_padding_on_the_left(both):
    theirs, ours = both
    input_ids, padding = ids(), torch.tensor([0, 7, 30])
    seen = torch.arange(48) >= padding[:, None]
    positions = (torch.arange(48) - padding[:, None]).clamp(min=0)
    wanted = theirs(input_ids, attention_mask=seen.long(), position_ids=positions).logits
    mask = (seen[:, None, :] | torch.eye(48, dtype=torch.bool))[:, None]
    close(ours, "padded", ours(input_ids, positions=positions, mask=mask)[seen], wanted[seen])


@torch.no_grad()
def test_logits_equal_with_a_cache_filled_in_uneven_steps(both):
    theirs, ours = both
    input_ids = ids()
    cache = KVCache(ours.config, 3, 48)
    made = torch.cat([ours(part, cache=cache) for part in input_ids.split(STEPS, dim=1)], 1)
    assert cache.length == 48
    if dynamic(ours):
        kept, wanted = transformers.DynamicCache(config=theirs.config), []
        for part in input_ids.split(STEPS, dim=1):
            wanted.append(theirs(part, past_key_values=kept, use_cache=True).logits)
        wanted = torch.cat(wanted, 1)
    else:
        wanted = theirs(input_ids).logits
    close(ours, "cache", made, wanted)


@torch.no_grad()
def test_greedy_text_is_theirs_alone_and_beside_a_longer_prompt(both):
    theirs, ours = both
    prompts = [ids()[0, :20].tolist(), ids()[1, :9].tolist()]
    together = [prompts] if not dynamic(ours) else [[p] for p in prompts]  # the longest row decides its frequencies
    results = [r for some in together for r in generate(ours, Numbers(), some, max_tokens=24, sampling=GREEDY)]
    for prompt, result in zip(prompts, results):
        forget(theirs)
        wanted = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )[0, len(prompt) :].tolist()
        stop = wanted.index(0) + 1 if 0 in wanted else 24  # our engine ends at the end token
        assert result.ids == wanted[:stop]
    record(ours.config.family, "greedy text")


@torch.no_grad()
def test_what_we_save_they_load_whole_and_with_the_same_logits(both, tmp_path):
    theirs, ours = both
    directory.save(ours, tmp_path / "ours")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert type(again) is type(theirs)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    close(ours, "saved", again.eval()(ids()).logits, theirs(ids()).logits)
    for name, p in theirs.state_dict().items():
        if "gemma" in ours.config.family and "norm" in name:  # stored minus 1: rounded at 1 on the way
            torch.testing.assert_close(again.state_dict()[name], p, rtol=0, atol=1e-7)
        else:
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
    difference = (ours.embed.weight.grad - wanted).abs().max() / wanted.abs().max()
    ours.zero_grad(), theirs.zero_grad()
    assert difference < 1e-4
    record(ours.config.family, "gradients", difference)


def test_a_configuration_survives_the_way_there_and_back(both):
    theirs, ours = both
    written = json.loads(json.dumps(families.write_config(ours.config)))
    assert families.read_config(written) == ours.config
    again = type(theirs.config)(**written)
    assert families.read_config(json.loads(again.to_json_string())) == ours.config  # and through their own files
    record(ours.config.family, "config")


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
