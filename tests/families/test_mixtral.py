"""Mixtral's router losses beside those of transformers, and its weights in the two forms they have."""

import pytest
import torch
import transformers
from oracle import GROUPED, make
from safetensors import safe_open
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from llmwright.checkpoint import directory

IDS = torch.randint(0, 131, (3, 40), generator=torch.Generator().manual_seed(3))


def load(theirs, folder):
    theirs.save_pretrained(folder)
    return directory.load(folder)


def test_the_balance_loss_of_one_layer_is_theirs(tmp_path):
    """Both are E · Σ (choices of an expert a token) · (its mean share); with two of four active the least is 2."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**{**GROUPED, "num_hidden_layers": 1}, num_local_experts=4, router_aux_loss_coef=0.3)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    ours = load(theirs, tmp_path).train()
    ours.hidden(IDS)
    wanted = theirs(IDS, output_router_logits=True).aux_loss
    assert ours.auxiliary_loss().item() == pytest.approx(0.3 * wanted.item(), rel=1e-5)
    assert wanted > 2


def test_of_several_layers_ours_is_the_mean_of_theirs_layer_by_layer(tmp_path):
    """Theirs counts the layers together, so that one layer's favourite may make up for another's; the paper's loss is of
    each layer (Fedus, Zoph & Shazeer 2022, section 2.2: "for each Switch layer")."""
    theirs = make("mixtral")
    ours = load(theirs, tmp_path).train()
    ours.hidden(IDS)
    logits = theirs(IDS, output_router_logits=True).router_logits
    one_by_one = torch.stack([load_balancing_loss_func((layer,), 4, 2) for layer in logits]).mean()
    assert ours.auxiliary_loss().item() == pytest.approx(0.001 * one_by_one.item(), rel=1e-5)
    assert one_by_one > load_balancing_loss_func(logits, 4, 2)


def test_experts_are_stored_one_by_one_as_published(tmp_path):
    """transformers 5 holds them in one tensor a layer, and reads and writes them one by one."""
    theirs = make("mixtral")
    directory.save(load(theirs, tmp_path / "theirs"), tmp_path / "ours")
    names = []
    for folder in ("theirs", "ours"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            names.append(set(file.keys()))
    assert names[0] == names[1]
    assert "model.layers.0.block_sparse_moe.experts.3.w2.weight" in names[0]


def test_the_z_loss_is_kept_in_our_own_key(tmp_path):
    from llmwright import families

    c = {"model_type": "mixtral", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
         "num_attention_heads": 2, "router_z_loss_coef": 0.01, "router_aux_loss_coef": 0}
    config = families.read_config(c)
    assert (config.experts.z_loss, config.experts.balance_loss) == (0.01, 0)
    assert families.read_config(families.write_config(config)) == config


def test_recomputed_activations_give_the_routers_the_same_gradients(tmp_path):
    ours = load(make("mixtral"), tmp_path).train()
    gradients = []
    for recompute in (False, True):
        ours.set_activation_checkpointing(recompute)
        ours.zero_grad()
        hidden = ours.hidden(IDS)
        (ours.cross_entropy(hidden, IDS) / IDS.numel() + ours.auxiliary_loss()).backward()
        gradients.append([p.grad.clone() for p in ours.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))
