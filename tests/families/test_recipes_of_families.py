"""Every family from a recipe's few numbers: it learns, and what it saves loads in transformers with the same logits."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from table import record

from llmwright import recipe as recipes
from llmwright.checkpoint import directory
from llmwright.errors import RequestError
from llmwright.families.shapes import shape
from llmwright.model.build import new
from llmwright.model.config import ALiBi, Learned, Relative, Sinusoidal
from llmwright.recipe import FAMILIES, OWN, Model

SPECIALS = {"bos": 1, "eos": 2, "pad": 0}
SMALL = dict(d_model=48, n_layers=2, n_heads=4, context=40)
OPTIONS = {
    "llama": dict(n_kv_heads=2, head_dim=16, rope_theta=500.0), "mixtral": dict(n_experts=3, active_experts=2),
    "gemma": dict(n_kv_heads=1, head_dim=20), "gemma2": dict(window=7), "gemma3": dict(window=7, n_layers=7),
    "t5": dict(n_encoder_layers=3), "marian": dict(n_encoder_layers=3),
}
CASES = [(family, {}) for family in FAMILIES] + [*OPTIONS.items(), ("t5", dict(tie_embeddings=False)),
                                                  ("falcon", dict(n_kv_heads=2)), ("bert", dict(tie_embeddings=False))]


def config_of(family, **change):
    return shape(Model(**{"family": family, **SMALL, **change}), 77, SPECIALS)


def ids(*size, seed=0):
    return torch.randint(3, 77, size, generator=torch.Generator().manual_seed(seed))  # no special tokens


def loss_of(model, batch):
    """What each kind of model learns, on one batch: the next token, hidden tokens, or a target after its source."""
    if model.config.kind == "encoder":
        hidden = model.hidden(torch.where(torch.arange(20) % 5 == 0, 3, batch))
        return model.cross_entropy(hidden[:, ::5], batch[:, ::5]) / batch[:, ::5].numel()
    if model.config.kind == "encoder-decoder":
        hidden = model.hidden(batch[:, :-1], model.encode(batch))
    else:
        hidden = model.hidden(batch[:, :-1])
    loss, routers = model.cross_entropy(hidden, batch[:, 1:]) / batch[:, 1:].numel(), model.auxiliary_loss()
    return loss if routers is None else loss + routers


@pytest.mark.parametrize("family, options", CASES, ids=str)
def test_a_new_model_learns_a_batch_and_what_it_saves_is_the_same_model_there(family, options, tmp_path):
    model, batch = new(config_of(family, **options), seed=1).train(), ids(4, 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(4):
        loss = loss_of(model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.02, losses
    model.eval()
    directory.save(model, tmp_path / "m")
    if family == "palm":
        return record("palm", "trains")  # transformers has none
    auto = {"decoder": transformers.AutoModelForCausalLM, "encoder": transformers.AutoModelForMaskedLM,
            "encoder-decoder": transformers.AutoModelForSeq2SeqLM}[model.config.kind]
    theirs, report = auto.from_pretrained(tmp_path / "m", output_loading_info=True, attn_implementation="eager")
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert theirs.config.eos_token_id == 2 and theirs.config.pad_token_id == 0
    text = ids(2, 40, seed=2)
    with torch.no_grad():
        if model.config.kind == "encoder-decoder":
            ours, wanted = model(text, text[:, :9]), theirs.eval()(input_ids=text, decoder_input_ids=text[:, :9]).logits
        else:
            ours, wanted = model(text), theirs.eval()(text).logits
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
    record(model.config.family, "trains", (ours - wanted).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recipe_gives_the_context_it_names_whatever_the_tokenizer_has(family):
    for specials in ({}, {"eos": 5}, {"pad": 30, "eos": 31}):
        config = shape(Model(family=family, **SMALL), 77, specials)
        assert config.context == 40
        assert config.special("eos") == specials.get("eos", {"t5": 1, "roberta": 2}.get(family))
    assert shape(Model(family=family, **SMALL, init_std=0.5, init_residual_scale=0.25), 77).init_std == 0.5


def test_each_family_has_its_papers_parts():
    kinds = {family: config_of(family).kind for family in FAMILIES}
    assert [f for f in FAMILIES if kinds[f] == "encoder"] == ["bert", "roberta"]
    assert [f for f in FAMILIES if kinds[f] == "encoder-decoder"] == ["t5", "marian"]
    schemes = {f: type(config_of(f).positions) for f in FAMILIES}
    assert [schemes[f] for f in ("gpt2", "bloom", "bert", "t5", "marian")] == [Learned, ALiBi, Learned, Relative, Sinusoidal]
    assert config_of("mistral", context=64).windows == (32, 32)
    assert config_of("mistral", context=20_000).windows == (4096, 4096)
    assert config_of("gemma2", n_layers=4).windows == (20, None, 20, None)
    assert config_of("gemma3", n_layers=8).windows == (20,) * 5 + (None, 20, 20)
    assert config_of("gemma3", n_layers=3).windows == (20, 20, None)  # of fewer than six the last sees everything
    gemma3 = config_of("gemma3")
    assert (gemma3.positions.theta, gemma3.local_positions.theta) == (1e6, 1e4)
    assert config_of("gemma2", head_dim=24).attention.scale == pytest.approx(24**-0.5)
    assert config_of("gemma2").attention.softcap == 50 and config_of("gemma2").head.softcap == 30
    experts = config_of("mixtral").experts
    assert (experts.n_experts, experts.n_active, experts.balance_loss, experts.z_loss) == (8, 2, 0.02, 0.001)
    assert config_of("mixtral", balance_loss=0, z_loss=0.5).experts.z_loss == 0.5
    assert config_of("mixtral", balance_loss=0).experts.balance_loss == 0
    assert config_of("falcon").attention.n_kv_heads == config_of("palm").attention.n_kv_heads == 1
    assert config_of("falcon", n_kv_heads=2).residual == "parallel_two_norms"
    assert config_of("t5").feed_forward.gated is False and config_of("t5", tie_embeddings=False).feed_forward.gated
    assert (config_of("t5", n_encoder_layers=5).n_encoder_layers, config_of("t5").n_encoder_layers) == (5, 2)


@pytest.mark.parametrize("change, said", [
    ("model.family=gpt2 model.rope_theta=500", "rope_theta 500 does not go with family gpt2: its positions are not rotary"),
    ("model.family=llama model.window=64", "window 64 does not go with family llama: every layer sees the whole text; "
                                           "families that have it: mistral, mixtral, gemma2, gemma3"),
    ("model.family=qwen3 model.n_experts=4", "n_experts 4 does not go with family qwen3: a layer has one feed-forward"),
    ("model.family=bert model.n_kv_heads=2", "n_kv_heads 2 does not go with family bert"),
    ("model.family=gpt2 model.n_encoder_layers=2", "n_encoder_layers 2 does not go with family gpt2"),
    ("model.family=bloom model.d_ff=100", "d_ff 100 does not go with family bloom: its feed-forward is 4 · d_model wide"),
    ("model.family=marian model.tie_embeddings=false", "one table is for input and output"),
    ("model.family=mixtral model.n_experts=2 model.active_experts=3", "active_experts 3 is more than the 2 experts"),
    ("model.family=falcon model.head_dim=64 model.n_heads=8", "head_dim 64 does not go with family falcon"),
    ("model.family=gemma model.n_heads=4 model.d_model=12", "odd"),
    ("model.family=gemini", "'gemini' is not allowed"),
])
def test_a_setting_that_a_family_has_not_is_refused_with_the_reason(change, said):
    with pytest.raises(RequestError) as caught:
        recipes.parse({"train": {"steps": 1}}, change.split())
    assert said in str(caught.value)


def test_a_setting_that_says_what_the_family_has_anyway_is_taken():
    for family, setting in (("gpt2", dict(n_kv_heads=4)), ("bert", dict(head_dim=12)), ("bloom", dict(d_ff=192))):
        assert config_of(family, **setting) == config_of(family)


def test_what_a_recipe_calls_a_setting_of_one_family_all_others_lack():
    for name, (families, _) in OWN.items():
        assert name in Model.model_fields and set(families.split()) < set(FAMILIES)
