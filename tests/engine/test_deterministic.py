"""With `deterministic`, what is written for a request is the same to the bit, whoever else is there and however the work
is cut; and it is what plain generation writes."""

import random

import pytest
import torch
from test_llm import PROMPTS, idle, memory
from test_tape import DECODERS, made, pytestmark  # noqa: F401

from llmwright.engine import weights
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError

WAYS = [dict(), dict(block=4, step_tokens=3), dict(max_texts=2, step_tokens=7), dict(block=4, blocks=18),
        dict(prefix_cache=False), dict(block=4, step_tokens=5, threads=2)]
HOW = [dict(weights="float"), dict(weights="int8"), dict(weights="int4")]


def bits(generation) -> tuple:
    """Not only what was chosen, but the log-probabilities as they are."""
    return generation.ids, generation.text, generation.finish_reason, generation.log_probs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", HOW, ids=lambda how: how["weights"])
@pytest.mark.parametrize("family", [*DECODERS, "mixtral"])
def test_a_text_is_the_same_to_the_bit_in_any_company_and_in_plain_generation(family, how, dtype):
    loaded = made(family, dtype, **how, steady=True)
    plain = {prompt: bits(loaded.generate(prompt, max_tokens=20, greedy=True)) for prompt in dict.fromkeys(PROMPTS)}
    for way in WAYS:
        way = dict(way)
        torch.set_num_threads(way.pop("threads", 1))
        if blocks := way.pop("blocks", 0):
            way["memory"] = memory(loaded, blocks, way["block"])
        engine = LLM(loaded, **way)
        rng, preempted = random.Random(1), 0
        for _ in range(2):  # the second time much of it is there already
            requests = [engine.submit(prompt, max_tokens=20, sampling=GREEDY) for prompt in PROMPTS]
            others = []
            while not all(request.done for request in requests):
                if rng.random() < 0.3:  # somebody comes, and may leave before the end
                    some = rng.choice(PROMPTS) + "x" * rng.randrange(8)
                    others.append(engine.submit(some, max_tokens=9, sampling=Sampling(seed=rng.randrange(9)), n=rng.choice((1, 2))))
                if others and rng.random() < 0.2:
                    engine.cancel(others.pop(rng.randrange(len(others))))
                engine.step()
            preempted += engine.scheduler.preemptions
            for other in others:
                engine.cancel(other)
            assert [bits(request.results[0]) for request in requests] == [plain[prompt] for prompt in PROMPTS]
            assert idle(engine)
        assert preempted or not blocks
    torch.set_num_threads(1)


def test_drawn_texts_are_the_same_too():
    loaded = made("qwen3", torch.bfloat16, weights="int8", steady=True)
    options = dict(max_tokens=20, temperature=1.1, top_p=0.9, seed=5)
    plain = [bits(loaded.generate(prompt, **options)) for prompt in dict.fromkeys(PROMPTS)]
    assert [bits(g) for g in LLM(loaded, step_tokens=6).generate(list(dict.fromkeys(PROMPTS)), **options)] == plain


def test_where_it_cannot_be_promised_it_is_refused(monkeypatch):
    from llmwright import kernels

    monkeypatch.setattr(kernels, "_mode", lambda: "torch")
    with pytest.raises(RequestError, match="deterministic texts need the native kernels"):
        made("llama", weights="float", steady=True)
    made("llama", weights="float")


@pytest.mark.parametrize("wrong, message", [
    (dict(weights="int3"), "'int3' .* must be auto, float, int8 or int4"), (dict(weights=""), "must be auto")])
def test_unknown_weights_are_named(wrong, message):
    with pytest.raises(RequestError, match=message):
        weights.hold(made("llama").model, **wrong)
