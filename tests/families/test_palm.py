"""PaLM against its paper's equations (Chowdhery et al. 2022, sections 2 and 5), written here from a directory's
weights, since no library and no published weights have them."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from number_tokenizer import Numbers
from safetensors.torch import load_file
from table import describe, record

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY
from llmwright.errors import RequestError
from llmwright.model.build import new
from llmwright.model.cache import KVCache

describe("palm", "PaLM", "Chowdhery et al. 2022",
         "decoder; rotary; attention and SwiGLU parallel behind one LayerNorm; multi-query; no biases; one table")

CONFIG = {
    "model_type": "palm", "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2,
}
CASES = {
    "as the paper has it": {}, "other widths": {"head_dim": 8, "intermediate_size": 56, "rope_theta": 100.0},
    "two kv heads": {"num_key_value_heads": 2},
}


def paper(folder, ids, seen=None):
    """The logits (B, T, V) of the model in `folder` by the paper's words. `seen` (B, T): False on padding."""
    c = json.loads((folder / "config.json").read_text())
    w = load_file(folder / "model.safetensors")
    D, H, C, K = c["hidden_size"], c["num_attention_heads"], c["head_dim"], c["num_key_value_heads"]
    B, T = ids.shape
    seen = torch.ones(B, T, dtype=torch.bool) if seen is None else seen
    places = seen.long().cumsum(1) - 1

    def layer_norm(x, weight):  # "no biases were used in any of the dense kernels or layer norms"
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + c["layer_norm_eps"]) * weight

    def rope(x):  # channels as complex numbers, turned by place · theta^(-2i/C)
        z = torch.complex(x[..., : C // 2], x[..., C // 2 :])
        angles = places[:, :, None, None] * c["rope_theta"] ** (-torch.arange(0, C, 2) / C)
        z = z * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((z.real, z.imag), -1)

    hidden = torch.ones(T, T, dtype=torch.bool).triu(1) | ~seen[:, None, None]
    x = w["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        def m(name):
            return w[f"model.layers.{i}.{name}.weight"]

        y = layer_norm(x, m("input_layernorm"))
        q = rope((y @ m("self_attn.q_proj").T).view(B, T, H, C)).transpose(1, 2)
        # "the key/value projections are shared for each head"
        k = rope((y @ m("self_attn.k_proj").T).view(B, T, K, C)).transpose(1, 2).repeat_interleave(H // K, 1)
        v = (y @ m("self_attn.v_proj").T).view(B, T, K, C).transpose(1, 2).repeat_interleave(H // K, 1)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(C)).masked_fill(hidden, -1e30)
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, H * C) @ m("self_attn.o_proj").T
        gate = y @ m("mlp.gate_proj").T
        mlp = (gate * torch.sigmoid(gate) * (y @ m("mlp.up_proj").T)) @ m("mlp.down_proj").T  # SwiGLU
        x = x + mlp + attended  # y = x + MLP(LayerNorm(x)) + Attention(LayerNorm(x))
    x = layer_norm(x, w["model.norm.weight"])
    return x @ w["model.embed_tokens.weight"].T / math.sqrt(D)  # section 5: "we scale the pre-softmax output logits"


@pytest.fixture(params=CASES)
def both(request, tmp_path):
    made = new(families.read_config({**CONFIG, **CASES[request.param]}), seed=4)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if p.ndim == 1:
                p.normal_(1.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    directory.save(made, tmp_path / "m")
    return tmp_path / "m", directory.load(tmp_path / "m")


def ids(rows: int = 3, length: int = 40) -> torch.Tensor:
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(1))


def close(check: str, made: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)
    record("palm", check, (made - wanted).abs().max())


@torch.no_grad()
def test_logits_are_those_of_the_papers_equations(both):
    folder, ours = both
    wanted = paper(folder, ids())
    assert wanted.std() > 0.5
    close("logits", ours(ids()), wanted)
    cache = KVCache(ours.config, 3, 40)
    close("cache", torch.cat([ours(part, cache=cache) for part in ids().split([9, 1, 1, 29], 1)], 1), wanted)


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(both):
    folder, ours = both
    padding = torch.tensor([0, 5, 20])[:, None]
    seen = torch.arange(40) >= padding
    positions = (torch.arange(40) - padding).clamp(min=0)
    mask = (seen[:, None, :] | torch.eye(40, dtype=torch.bool))[:, None]
    close("padded", ours(ids(), positions=positions, mask=mask)[seen], paper(folder, ids(), seen)[seen])


@torch.no_grad()
def test_greedy_text_is_that_of_the_equations(both):
    folder, ours = both
    text = prompt = ids()[0, :9].tolist()
    for _ in range(20):
        text = [*text, paper(folder, torch.tensor([text]))[0, -1, :97].argmax().item()]
        if text[-1] == 2:
            break
    made = generate(ours, Numbers(), [prompt], max_tokens=20, sampling=GREEDY)[0].ids
    assert prompt + made == text
    record("palm", "greedy text")


def test_gradients_are_those_of_the_equations(both):
    folder, ours = both
    weights = {name: tensor.requires_grad_() for name, tensor in load_file(folder / "model.safetensors").items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_palm.load_file", lambda _: weights)
        wanted = paper(folder, ids(2, 20))
    for logits in (wanted, ours(ids(2, 20))):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids(2, 20)[:, 1:].flatten()).backward()
    names = {"model.embed_tokens": "embed", "model.layers.0.self_attn.k_proj": "blocks.0.attention.key"}
    for theirs, mine in names.items():
        wanted = weights[f"{theirs}.weight"].grad
        difference = (ours.get_parameter(f"{mine}.weight").grad - wanted).abs().max() / wanted.abs().max()
        assert difference < 1e-4
        record("palm", "gradients", difference)


def test_a_configuration_survives_the_way_there_and_back(both):
    _, ours = both
    assert families.read_config(json.loads(json.dumps(families.write_config(ours.config)))) == ours.config
    record("palm", "config")


def test_new_weights_are_scaled_by_their_inputs_and_embeddings_have_a_deviation_of_one():
    """Section 5: N(0, 1/sqrt(fan in)) for the kernels, E ~ N(0, 1), and logits through 1/sqrt(n)."""
    wide = {**CONFIG, "hidden_size": 256, "num_attention_heads": 8, "vocab_size": 500}
    made = new(families.read_config(wide), seed=0)
    std = {name: p.std().item() for name, p in made.named_parameters() if p.ndim == 2}
    assert std["embed.weight"] == pytest.approx(1, rel=0.02)
    assert std["blocks.1.attention.query.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert std["blocks.1.attention.key.weight"] == pytest.approx(256**-0.5, rel=0.05)
    assert std["blocks.1.feed_forward.down.weight"] == pytest.approx(1024**-0.5, rel=0.02)
    with torch.no_grad():
        logits = made(torch.arange(400)[None])[0]
        logits[torch.arange(400), torch.arange(400)] = 0  # of the token that was read: it finds itself in the table
        assert logits.std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("change, said", [
    ({"tie_word_embeddings": False}, "tie_word_embeddings"), ({"hidden_act": "gelu"}, "hidden_act"),
    ({"num_attention_heads": 5}, "not a multiple"), ({"num_key_value_heads": 3}, "n_kv_heads 3"),
])
def test_what_palm_has_not_is_one_clear_line(change, said):
    with pytest.raises(RequestError, match=said):
        families.read_config({**CONFIG, **change})
