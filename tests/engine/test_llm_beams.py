"""A search in the engine finds what a search alone finds, whatever room there is and whoever else is there."""

import random

import pytest
from small import tokenizer
from test_llm import FAMILIES, PROMPTS, idle, loaded, memory

from llmwright.engine.beam import Beams
from llmwright.engine.generate import generate
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.engine.weights import hold
from llmwright.errors import RequestError, WorkError


def ending(family: str = "qwen3", **change):
    """Some of its texts end before their limit."""
    import torch

    made = loaded(family, **change)
    with torch.no_grad():
        made.model.head_weight[tokenizer().eos_id] *= 1.5
    return made


def same(ours, theirs) -> bool:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.ids, one.text, one.finish_reason) == (other.ids, other.text, other.finish_reason)
        # weights this large make attention sharp, where rounding shows
        assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-4)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-3)
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_the_beams_of_each_prompt_are_those_of_plain_generation(family):
    made = ending(family)
    ways = [dict(), dict(block=4, step_tokens=3), dict(max_texts=5, block=4, prefix_cache=False)]
    for i, options in enumerate((
        dict(beams=4), dict(beams=3, length_penalty=2.0, early_stopping=True, repetition_penalty=1.3), dict(beams=1),
        dict(beams=5, length_penalty=-1.0, early_stopping="never", stop=["e"]),
    )):
        plain = made.generate(PROMPTS, max_tokens=14, n=min(2, options["beams"]), **options)
        for how in ways if family == "qwen3" else [ways[-i % 3]]:
            engine = LLM(made, **how)
            found = engine.generate(PROMPTS, max_tokens=14, n=min(2, options["beams"]), **options)
            assert same(found, plain)
            assert idle(engine)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_searches_take_each_others_room_and_find_the_same(prefix_cache):
    made = ending()
    plain = made.generate(PROMPTS, max_tokens=20, beams=4, n=4)
    # the room that the longest of them needs alone, and none beyond it
    ids, size = max((len(tokenizer().encode(p)) for p in PROMPTS)), 4
    blocks = ids // size + 4 * (-(-(ids + 19) // size) - ids // size)
    engine = LLM(made, memory=memory(made, blocks, size), block=size, step_tokens=17, prefix_cache=prefix_cache)
    assert same(engine.generate(PROMPTS, max_tokens=20, beams=4, n=4), plain)
    assert engine.scheduler.preemptions > 1 and idle(engine)
    with pytest.raises(RequestError, match="4 beams of 23 do not fit into the cache"):
        engine.generate(max(PROMPTS, key=lambda p: len(tokenizer().encode(p))), max_tokens=23, beams=4)
    assert idle(engine)


def test_beams_share_the_blocks_that_they_have_in_common():
    made = ending()
    engine = LLM(made, block=4)
    prompt = [5 + i for i in range(30)]  # seven full blocks and one that is written to
    request = engine.submit(prompt, max_tokens=20, beams=Beams(4))
    copies = []
    run = engine.runner.run
    engine.runner.run = lambda plan: (copies.append(len(plan.copies)), run(plan))[1]
    most = 0
    while engine.step():
        used = [number for beam in request.sequences for number in beam.table]
        assert len(set(used)) <= 7 + 4 * (len(used) // 4 - 7 + 1) if used else True
        engine.blocks.check([s.table for s in engine.scheduler.running])
        most = max(most, len(set(used)))
    assert most < 4 * 8  # what four texts on their own would take before they wrote anything
    assert max(copies) <= 4 and 0 < sum(copies)
    assert idle(engine)


def test_searches_and_drawn_texts_go_on_in_the_same_steps():
    made = ending()
    wanted_beams = generate(made.model, tokenizer(), PROMPTS[:3], max_tokens=12, sampling=GREEDY, beams=Beams(3), n=3)
    wanted_greedy = generate(made.model, tokenizer(), PROMPTS[:3], max_tokens=12, sampling=GREEDY)
    engine, together, pieces = LLM(made, block=4, step_tokens=20), 0, {}
    searched, greedy = [], []
    for i, prompt in enumerate(PROMPTS[:3]):
        searched.append(engine.submit(prompt, max_tokens=12, beams=Beams(3), n=3,
                                      on_text=lambda j, piece, i=i: pieces.setdefault((i, j), []).append(piece)))
        greedy.append(engine.submit(prompt, max_tokens=12, sampling=GREEDY))
    while engine.step():
        owners = {id(s.owner[0]) for s in engine.scheduler.running}
        together += len(owners & {id(r) for r in searched}) > 0 and len(owners & {id(r) for r in greedy}) > 0
    assert together > 5 and idle(engine)
    found = [r for request in searched for r in request.results]
    assert same(found, wanted_beams)
    assert [r.ids for request in greedy for r in request.results] == [r.ids for r in wanted_greedy]
    assert all(pieces.get((i, j), []) == [r.text] * bool(r.text) for i, request in enumerate(searched)
               for j, r in enumerate(request.results))


def test_searches_come_and_go_and_leave_nothing():
    made = ending()
    engine = LLM(made, memory=memory(made, 24, 4), block=4, max_texts=7, step_tokens=11)
    rng, waiting, ended = random.Random(2), [], []
    for number in range(120):
        beams = Beams(rng.randint(1, 4)) if rng.random() < 0.6 else None
        waiting.append(engine.submit(rng.choice(PROMPTS[:5]), max_tokens=rng.randint(1, 12), beams=beams,
                                     sampling=GREEDY if beams else Sampling(seed=number), on_end=ended.append))
        engine.step()
        if rng.random() < 0.2:  # in the middle of a search, of one that waits, or of one that is done
            engine.cancel(waiting.pop(rng.randrange(len(waiting))))
        engine.blocks.check([s.table for s in engine.scheduler.running])
    while engine.step():
        engine.blocks.check([s.table for s in engine.scheduler.running])
    assert idle(engine) and engine.scheduler.preemptions > 0 and len(ended) > 60
    assert all(request.done and not request.error for request in ended)


def test_one_search_that_fails_does_not_take_the_others_with_it():
    import torch

    made = ending()
    engine = LLM(made)
    every = [[i] for i in range(made.model.config.vocab_size)]
    bad = engine.submit("import", sampling=Sampling(temperature=0.0, bad_words=every), max_tokens=5, beams=Beams(2))
    good = engine.submit("import os", max_tokens=5, beams=Beams(2))
    while engine.step():
        pass
    assert "no token to choose" in str(bad.error)
    assert good.results[0].ids == made.generate("import os", max_tokens=5, beams=2).ids and idle(engine)
    with torch.no_grad():
        made.model.norm.weight.fill_(float("nan"))
    with pytest.raises(WorkError, match="not finite"):
        engine.generate("x", max_tokens=3, beams=3)
    assert idle(engine)


def test_a_search_that_cannot_be_made_is_refused_at_once():
    made = loaded()
    engine = LLM(made, memory=memory(made, 1, 16), block=16, max_texts=3)
    for options, said in ((dict(beams=Beams(4)), "4 texts of one prompt are more than the 3"),
                          (dict(beams=Beams(2), n=3), "n 3 is more than the 2 beams"),
                          (dict(beams=Beams(2), max_tokens=0), "max_tokens 0"),
                          (dict(beams=Beams(2), make_mask=lambda: None), "a grammar"),
                          (dict(beams=Beams(2), max_tokens=20), "do not fit into the cache")):
        with pytest.raises(RequestError, match=said):
            engine.submit([1, 2, 3], **{"max_tokens": 1, **options})
    assert idle(engine)
    # one block of memory: one beam fits
    assert engine.generate([[1, 2, 3]], max_tokens=14, beams=1)[0].ids == made.generate(
        [[1, 2, 3]], max_tokens=14, beams=1)[0].ids
    assert idle(engine)


def test_deterministic_beams_and_scores_are_the_same_to_the_bit():
    made = ending()
    try:
        hold(made.model, "float", steady=True)
    except RequestError as error:
        pytest.skip(str(error))
    plain = made.generate(PROMPTS, max_tokens=14, n=3, beams=3)
    scores = []
    for how in (dict(), dict(block=4, step_tokens=3), dict(max_texts=5, block=4, prefix_cache=False),
                dict(block=4, memory=memory(made, 40, 4))):
        engine = LLM(made, **how)
        found = engine.generate(PROMPTS, max_tokens=14, n=3, beams=3, prompt_log_probs=1)
        assert [(r.ids, r.score, r.log_probs) for r in found] == [(r.ids, r.score, r.log_probs) for r in plain]
        scores.append([(r.prompt_log_probs, r.prompt_top_log_probs) for r in found])
    assert all(one == scores[0] for one in scores) and engine.scheduler.preemptions > 0
