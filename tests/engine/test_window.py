"""A window with attention sinks: equal to what it stands for, and good for texts longer than any context."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.generate import generate
from llmwright.engine.language_model import load
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.engine.window import Window, WindowStepper
from llmwright.errors import RequestError
from llmwright.model.build import new
from llmwright.model.cache import KVCache
from llmwright.model.config import (
    ALiBi, Attention, FeedForward, Learned, ModelConfig, Norm, Relative, RopeScaling, Rotary, Sinusoidal,
)

V = 50
SCHEMES = {
    "rotary": Rotary(theta=100.0), "half of a head": Rotary(theta=100.0, dim=4),
    "yarn": Rotary(theta=100.0, scaling=RopeScaling("yarn", 4.0, 16)), "alibi": ALiBi(),
    "falcon's alibi": ALiBi(0.3, rounded=True), "relative": Relative(8, 12),
}


def model(positions=Rotary(theta=100.0), **change):
    parts = dict(
        family="llama", vocab_size=V, d_model=32, n_layers=3, context=64, attention=Attention(4, 2, 8),
        feed_forward=FeedForward(48), positions=positions, norm=Norm("rms"), init_std=0.3,
    )
    return new(ModelConfig(**{**parts, **change}), seed=2).eval()


def text(n: int, seed: int = 0) -> list[int]:
    return torch.randint(0, V, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def along(steps: WindowStepper, *texts: list[int]) -> torch.Tensor:
    """The logits after each token of texts of one length that go on from the stepper's prompts, (B, T, V)."""
    made = [steps.prefill()] + [steps.step(torch.tensor(ids)) for ids in zip(*texts)]
    return torch.stack(made, 1)


def held(n: int, window: Window) -> list[int]:
    """Which of a text's `n` tokens are in the window, counted out."""
    places = []
    for t in range(n):
        if len(places) == window.size:
            del places[window.sinks : window.sinks + window.drop]
        places.append(t)
    return places


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_window_longer_than_the_text_changes_nothing(scheme):
    made, ids = model(SCHEMES[scheme]), text(40)
    logits = along(WindowStepper(made, [ids[:10]], Window(40)), ids[10:])
    torch.testing.assert_close(logits, made(torch.tensor([ids]))[:, 9:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [Window(16, 4), Window(30, 2), Window(9, 0), Window(3, 1)], ids=repr)
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_in_one_layer_it_is_the_model_on_the_sinks_and_the_last_tokens_at_positions_from_zero(scheme, window):
    """With one layer, what a token left in the cache does not depend on tokens that are gone."""
    made, ids = model(SCHEMES[scheme], n_layers=1), text(64)
    logits = along(WindowStepper(made, [ids[:1]], window), ids[1:])
    for n in range(1, 65):
        left = [ids[place] for place in held(n, window)]
        torch.testing.assert_close(logits[0, n - 1], made(torch.tensor([left]))[0, -1], rtol=0, atol=2e-4)


@torch.no_grad()
def test_in_many_layers_it_is_the_papers_cache_of_unturned_keys():
    """Section 3.2: keys are held as they are before the rotary transformation, and each step turns all of them by their
    places in the cache. We turn them once, and back by what goes."""
    made, ids, window = model(), text(120), Window(20, 3)
    C = made.config.attention.head_dim

    def turn(x, places):  # (S, heads, C)
        angles = torch.tensor(places)[:, None, None] * 100.0 ** (-torch.arange(0, C, 2) / C)
        a, b = x.chunk(2, -1)
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)

    keys, values, wanted = [[] for _ in made.blocks], [[] for _ in made.blocks], []
    for t, token in enumerate(ids):
        places = held(t + 1, window)
        x = made.embed.weight[token]
        for block, k, v in zip(made.blocks, keys, values):
            a, y = block.attention, block.attention_norm(x)
            k.append(a.key(y).view(2, C))
            v.append(a.value(y).view(2, C))
            q = turn(a.query(y).view(1, 4, C), [len(places) - 1])[0]
            seen = turn(torch.stack([k[p] for p in places]), list(range(len(places)))).repeat_interleave(2, 1)
            scores = torch.einsum("hc,shc->hs", q, seen) * C**-0.5
            read = torch.stack([v[p] for p in places]).repeat_interleave(2, 1)
            x = x + a.out(torch.einsum("hs,shc->hc", scores.softmax(-1), read).flatten())
            x = x + block.feed_forward(block.feed_forward_norm(x))
        wanted.append(made.logits(made.norm(x)))
    made_in_window = along(WindowStepper(made, [ids[:1]], window), ids[1:])[0]
    torch.testing.assert_close(made_in_window, torch.stack(wanted), rtol=0, atol=2e-4)
    whole = made(torch.tensor([ids[:60]]))[0, -1]
    assert (whole - wanted[59]).abs().max() > 0.1  # and not what the model says with all of the text


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_text_does_not_depend_on_its_neighbours_nor_on_how_its_prompt_came(scheme):
    made, window = model(SCHEMES[scheme]), Window(18, 2)
    prompts = [text(n, seed=n) for n in (1, 70, 12, 25, 18)]
    rest = [text(40, seed=100 + n) for n in range(5)]
    together = along(WindowStepper(made, prompts, window), *rest)
    for i, prompt in enumerate(prompts):
        alone = along(WindowStepper(made, [prompt], window), rest[i])
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=2e-4)
        by_token = along(WindowStepper(made, [prompt[:1]], window), [*prompt[1:], *rest[i]])
        torch.testing.assert_close(alone[0], by_token[0, len(prompt) - 1 :], rtol=0, atol=2e-4)


@torch.no_grad()
def test_rows_that_end_leave_the_others_as_they_were():
    made, window = model(), Window(18, 2)
    prompts, rest = [text(n, seed=n) for n in (30, 5, 11)], [text(30, seed=100 + n) for n in range(3)]
    steps = WindowStepper(made, prompts, window)
    first = along(steps, *(ids[:10] for ids in rest))
    steps.select(torch.tensor([2, 0]))
    later = torch.stack([steps.step(torch.tensor(ids)) for ids in zip(rest[2][10:], rest[0][10:])], 1)
    for row, i in enumerate((2, 0)):
        alone = along(WindowStepper(made, [prompts[i]], window), rest[i])[0]
        torch.testing.assert_close(torch.cat((first[i], later[row])), alone, rtol=0, atol=2e-4)


@torch.no_grad()
def test_layers_with_windows_and_positions_of_their_own_go_on():
    """Gemma 3's kind: some layers see little and turn by other angles."""
    made = model(Rotary(theta=1000.0), n_layers=1, windows=(6,), local_positions=Rotary(theta=10.0))
    window, ids = Window(16, 2), text(50)
    logits = along(WindowStepper(made, [ids[:1]], window), ids[1:])
    for n in range(1, 51):
        left = [ids[place] for place in held(n, window)]
        torch.testing.assert_close(logits[0, n - 1], made(torch.tensor([left]))[0, -1], rtol=0, atol=2e-4)


@torch.no_grad()
def test_in_bfloat16_turning_back_hardly_rounds():
    made, ids, window = model(n_layers=1), text(200), Window(32, 4)
    made.set_dtype(torch.bfloat16)
    logits = along(WindowStepper(made, [ids[:1]], window), ids[1:])
    ours = new(replace(made.config), seed=2).eval()
    exact = along(WindowStepper(ours, [ids[:1]], window), ids[1:])
    once = torch.stack([made(torch.tensor([[ids[p] for p in held(n, window)]]))[0, -1] for n in range(150, 201)])
    noise = (once - exact[0, 149:]).norm()  # of bfloat16 itself
    assert (logits[0, 149:] - exact[0, 149:]).norm() < 1.5 * noise


@pytest.mark.parametrize("change, window, said", [
    (dict(positions=Learned(64)), Window(16), "adds each position's vector"),
    (dict(positions=Sinusoidal()), Window(16), "rotary, ALiBi or relative"),
    ({}, Window(65), "longer than the model's context of 64"),
    (dict(positions=Rotary(scaling=RopeScaling("dynamic", 2.0, 20))), Window(30), "dynamic"),
    (dict(kind="encoder"), Window(16), "decoder"),
])
def test_a_model_that_cannot_slide_says_so(change, window, said):
    with pytest.raises(RequestError, match=said) as caught:
        WindowStepper(model(**change), [[1]], window)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size, sinks", [(5, 4), (0, 0), (10, -1)])
def test_a_window_without_room_is_refused(size, sinks):
    with pytest.raises(RequestError, match="at least"):
        Window(size, sinks)


@torch.no_grad()
def test_moved_keys_are_the_keys_of_the_other_position():
    for scheme in SCHEMES.values():
        made, ids = model(scheme, n_layers=1), torch.tensor([text(9)])
        late, early = KVCache(made.config, 1, 9), KVCache(made.config, 1, 9)
        made(ids, positions=torch.arange(40, 49)[None], cache=late)
        made(ids, cache=early)
        made.slide(late, torch.arange(9)[None], torch.full((1, 9), -40))
        torch.testing.assert_close(late.keys[0], early.keys[0], rtol=0, atol=1e-4)


def test_generate_goes_on_beyond_the_context_in_a_window():
    made = small.model("qwen3")  # a context of 64
    prompts = ["def main():\n", "import os\n" * 30]
    long = generate(made, small.tokenizer(), prompts, max_tokens=80, sampling=Sampling(seed=3), window=Window(40))
    assert max(len(result.ids) for result in long) > 64
    assert all(len(r.ids) == 80 or r.finish_reason == "stop" for r in long)
    alone = generate(made, small.tokenizer(), prompts[1], max_tokens=80, sampling=Sampling(seed=3), window=Window(40))
    assert alone[0].ids == long[1].ids
    with pytest.raises(RequestError, match="context"):
        generate(made, small.tokenizer(), prompts[1], max_tokens=80)


def test_a_window_that_holds_all_of_it_gives_the_same_text():
    made = small.model("llama")
    plain = generate(made, small.tokenizer(), ["x", "import os"], max_tokens=20, sampling=GREEDY)
    windowed = generate(made, small.tokenizer(), ["x", "import os"], max_tokens=20, sampling=GREEDY, window=Window(64))
    assert [r.ids for r in plain] == [r.ids for r in windowed]


def test_the_command_goes_on_in_a_window(tmp_path, capsys):
    directory.save(small.model("llama"), tmp_path / "m", tokenizer=small.tokenizer())
    command = ["generate", str(tmp_path / "m"), "import os", "--greedy", "--max-tokens", "90"]
    assert run([*command, "--window", "24", "--sinks", "2"]) == 0
    wanted = generate(small.model("llama"), small.tokenizer(), "import os", max_tokens=90, sampling=GREEDY,
                      window=Window(24, 2))[0]
    assert capsys.readouterr().out == f"import os{wanted.text}\n"
    directory.save(small.model("gpt2"), tmp_path / "learned", tokenizer=small.tokenizer())
    assert run(["generate", str(tmp_path / "learned"), "x", "--window", "24"]) == 2
    assert "rotary, ALiBi or relative" in capsys.readouterr().err


@pytest.mark.slow
@torch.no_grad()
def test_a_published_model_stays_good_in_a_window_with_sinks_and_fails_without(smollm2):
    """Xiao et al. 2023, table 1: without its first tokens a model loses its way as soon as they leave the window."""
    made, tokenizer = (loaded := load(smollm2)).model, loaded.tokenizer
    source = Path(argparse.__file__).read_text(encoding="utf-8")
    ids = torch.tensor([[int(i) for i in tokenizer.encode(source)][:513]])
    losses = {"all seen": made.token_losses(made.hidden(ids[:, :-1]), ids[:, 1:].contiguous())}
    for sinks in (0, 4):
        steps, parts, at = WindowStepper(made, [[0]], Window(128, sinks)), [], 0
        while at < 512:
            end = min(at + steps.room(), 512)
            hidden = steps.feed(ids[:, at:end], torch.ones(1, end - at, dtype=torch.bool))
            parts.append(made.token_losses(hidden, ids[:, at + 1 : end + 1].contiguous()))
            at = end
        losses[sinks] = torch.cat(parts, 1)
    perplexity = {name: found[0, 128:].mean().exp().item() for name, found in losses.items()}
    assert perplexity[4] < 1.5 * perplexity["all seen"] and perplexity[0] > 2 * perplexity[4], perplexity
