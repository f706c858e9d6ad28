"""Log-probabilities of a prompt are those of its own text in transformers, however it is read."""

import pytest
import torch
import transformers
from small import tokenizer
from test_llm import PROMPTS, idle, loaded, memory

from llmwright.checkpoint import directory
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY
from llmwright.errors import RequestError, WorkError

IDS = [[tokenizer().bos_id, *tokenizer().encode(p)] for p in PROMPTS if p]
WAYS = [dict(), dict(block=4, step_tokens=3), dict(block=4, step_tokens=7, max_texts=2), dict(prefix_cache=False)]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def both(request, tmp_path_factory):
    made, path = loaded(request.param), tmp_path_factory.mktemp("model") / request.param
    directory.save(made.model, path)
    return made, transformers.AutoModelForCausalLM.from_pretrained(path).eval()


def by_transformers(theirs, ids: list[int]) -> torch.Tensor:
    """(T - 1, V)"""
    with torch.no_grad():
        return theirs(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_each_token_of_a_prompt_has_the_log_probability_of_transformers(both, how, monkeypatch):
    made, theirs = both
    monkeypatch.setattr("llmwright.engine.prompt_scores.AT_ONCE", 5 * made.model.config.vocab_size)  # five positions at a time
    engine = LLM(made, **how)
    for _ in range(2):  # the second time the prefix cache knows them
        found = engine.generate(IDS, max_tokens=3, greedy=True, prompt_log_probs=2)
        for ids, result in zip(IDS, found, strict=True):
            wanted = by_transformers(theirs, ids)
            own = wanted.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
            best = wanted.topk(2)
            assert result.prompt_log_probs[0] is None and result.prompt_top_log_probs[0] is None
            assert result.prompt_log_probs[1:] == pytest.approx(own, abs=1e-4)
            for place, i, value in zip(result.prompt_top_log_probs[1:], best.indices.tolist(), best.values.tolist(),
                                       strict=True):
                assert [j for j, _ in place] == i and [v for _, v in place] == pytest.approx(value, abs=1e-4)
            assert len(result.ids) == len(result.log_probs) > 0
        assert idle(engine)
    plain = made.generate(IDS, max_tokens=3, greedy=True)
    assert [r.ids for r in found] == [r.ids for r in plain] and plain[0].prompt_log_probs is None


def test_a_prompt_that_is_read_again_is_scored_once():
    made = loaded()
    alone = LLM(made).generate(IDS, max_tokens=20, greedy=True, prompt_log_probs=0)
    engine = LLM(made, memory=memory(made, 18, 4), block=4, step_tokens=5)
    found = engine.generate(IDS, max_tokens=20, greedy=True, prompt_log_probs=0)
    assert engine.scheduler.preemptions > 0 and idle(engine)
    for one, other in zip(found, alone):
        assert one.ids == other.ids and one.prompt_log_probs[1:] == pytest.approx(other.prompt_log_probs[1:], abs=1e-4)
        assert one.prompt_top_log_probs == [None] + [[]] * (len(one.prompt_log_probs) - 1)


def test_a_prompt_alone_is_scored_up_to_the_last_place_of_the_context():
    made = loaded()
    engine = LLM(made, block=4, step_tokens=10)
    ended = []
    ids = [(7 * i) % 300 for i in range(made.model.config.context)]
    for some in (ids, ids[:8], ids[:1]):
        request = engine.submit(some, max_tokens=0, prompt_log_probs=1, on_end=ended.append)
        while engine.step():
            pass
        result, = request.results
        assert request.done and not result.ids and not result.text and result.finish_reason == "length"
        assert len(result.prompt_log_probs) == len(result.prompt_top_log_probs) == len(some)
    assert len(ended) == 3 and idle(engine)
    with pytest.raises(RequestError, match="context"):
        engine.submit([*ids, 1], max_tokens=0, prompt_log_probs=1)


def test_several_texts_and_beams_of_a_prompt_share_its_scores():
    made = loaded()
    engine = LLM(made, block=4)
    wanted = engine.generate([IDS[0]], max_tokens=0, prompt_log_probs=1)[0]
    for options in (dict(n=3, seed=1), dict(beams=3, n=2)):
        for result in engine.generate([IDS[0]], max_tokens=4, prompt_log_probs=1, **options):
            assert result.prompt_log_probs[1:] == pytest.approx(wanted.prompt_log_probs[1:], abs=1e-4)
    assert idle(engine)


def test_a_token_that_no_text_stands_for_cannot_follow():
    size = tokenizer().vocab_size
    engine = LLM(loaded("llama", vocab_size=size + 7))
    every = [[1, 2, i] for i in range(size)]
    last = [r.prompt_log_probs[-1] for r in engine.generate(every, max_tokens=0, prompt_log_probs=0)]
    assert torch.tensor(last).exp().sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(RequestError, match=f"token id {size + 3} is outside the vocabulary"):
        engine.generate([[1, size + 3, 2]], max_tokens=0, prompt_log_probs=3)
    assert idle(engine)


def test_what_cannot_be_scored_is_refused_or_fails_alone():
    made = loaded()
    engine = LLM(made)
    for options, said in ((dict(max_tokens=0), "max_tokens 0"), (dict(prompt_log_probs=-1), "prompt_log_probs -1"),
                          (dict(prompt_log_probs=101), "prompt_log_probs 101"),
                          (dict(prompt_log_probs=0, max_tokens=-1), "max_tokens -1")):
        with pytest.raises(RequestError, match=said):
            engine.submit("x", **options)
    request = engine.submit("import os", max_tokens=0, prompt_log_probs=0)
    engine.cancel(request)
    assert idle(engine) and not engine.step()
    with torch.no_grad():
        made.model.embed.weight[5] = float("nan")
    bad = engine.submit([5, 6, 7], max_tokens=0, prompt_log_probs=0)
    good = engine.submit([8, 9], max_tokens=3, sampling=GREEDY, prompt_log_probs=0)
    while engine.step():
        pass
    assert isinstance(bad.error, WorkError) and not good.error and len(good.results[0].ids) > 0
    assert idle(engine)
