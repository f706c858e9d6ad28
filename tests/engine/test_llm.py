"""Many texts at once are what each would be alone, whatever room there is, and whoever else comes and goes."""

import random
from pathlib import Path

import pytest
import torch
from small import SHAPES, model, tokenizer

from llmwright.engine.generate import generate
from llmwright.engine.language_model import LanguageModel
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError, WorkError
from llmwright.model.paged import PagedCache

PROMPTS = ["def main():\n", "import os", "", "class Größe(object):\n    x = '🙂'\n    y = [1, 2, 3]\n", "x", "import os"]
FAMILIES = {
    **dict.fromkeys(SHAPES, {}),
    "bloom": dict(model_type="bloom", hidden_size=48, n_layer=2, n_head=4, initializer_range=0.3, seq_length=128),
    "falcon": dict(model_type="falcon", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, alibi=True,
                   new_decoder_architecture=False, multi_query=True, initializer_range=0.3, max_position_embeddings=128),
    "gemma2": dict(model_type="gemma2", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                   head_dim=12, intermediate_size=96, max_position_embeddings=64, initializer_range=0.3, sliding_window=8,
                   query_pre_attn_scalar=12, attn_logit_softcapping=5.0, final_logit_softcapping=10.0),
    "mixtral": dict(model_type="mixtral", hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, intermediate_size=96, max_position_embeddings=64, initializer_range=0.3,
                    num_local_experts=4, num_experts_per_tok=2),
}


def loaded(family: str = "qwen3", **change) -> LanguageModel:
    from llmwright import families
    from llmwright.model.build import new

    if family in SHAPES:
        return LanguageModel(model(family, **change), tokenizer(), Path("small"))
    t = tokenizer()
    shape = {**FAMILIES[family], "vocab_size": t.vocab_size, "bos_token_id": t.bos_id, "eos_token_id": t.eos_id}
    return LanguageModel(new(families.read_config(shape), seed=1).eval(), t, Path("small"))


def memory(made: LanguageModel, blocks: int, size: int) -> int:
    return blocks * PagedCache.block_bytes(made.model.config, size, made.model.dtype)


def idle(engine: LLM) -> bool:
    engine.blocks.check([])
    return (not engine.scheduler.running and not engine.scheduler.waiting
            and engine.blocks.available == len(engine.blocks.blocks))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", [
    dict(), dict(block=4, step_tokens=3), dict(max_texts=2, step_tokens=7), dict(block=4, blocks=18), dict(prefix_cache=False)])
def test_the_text_of_each_is_that_of_plain_generation(family, how):
    made, how = loaded(family), dict(how)
    plain = generate(made.model, made.tokenizer, PROMPTS, max_tokens=30, sampling=GREEDY)
    if blocks := how.pop("blocks", 0):  # little more than one needs: they take each other's room
        how["memory"] = memory(made, blocks, how["block"])
    engine = LLM(made, **how)
    for _ in range(2):  # the second time much of it is there already
        found = engine.generate(PROMPTS, max_tokens=30, temperature=0.0)
        assert [(r.prompt, r.ids, r.text, r.finish_reason) for r in found] == [
            (r.prompt, r.ids, r.text, r.finish_reason) for r in plain]
        for ours, theirs in zip(found, plain):
            assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-4)
        assert idle(engine)


def test_drawn_texts_are_those_of_plain_generation_and_several_go_on_from_one_prompt():
    made = loaded()
    options = dict(max_tokens=20, n=3, top_log_probs=2)
    plain = generate(made.model, made.tokenizer, PROMPTS[:4], sampling=Sampling(temperature=1.2, seed=3), **options)
    engine = LLM(made, block=4, step_tokens=9)
    found = engine.generate(PROMPTS[:4], temperature=1.2, seed=3, **options)
    assert [r.ids for r in found] == [r.ids for r in plain] and len({r.text for r in found[:3]}) == 3
    assert all(len(r.top_log_probs) == len(r.ids) and len(r.top_log_probs[0]) == 2 for r in found)
    assert idle(engine)


def test_what_was_read_is_found_again():
    made = loaded()
    engine = LLM(made, block=4)
    prompt = "def main():\n    return 1\n"
    engine.generate(prompt, max_tokens=4, greedy=True)
    request = engine.submit(prompt + "# more", max_tokens=4, sampling=GREEDY)
    engine.step()
    assert request.sequences[0].reused >= 4 * (len(tokenizer().encode(prompt)) // 4)
    engine.cancel(request)
    assert idle(engine)


def test_requests_come_and_go_and_leave_nothing():
    made = loaded()
    engine = LLM(made, memory=memory(made, 24, 4), block=4, max_texts=5, step_tokens=11)
    rng, open_requests, ended, told = random.Random(1), [], [], {}
    for number in range(150):
        try:
            request = engine.submit(
                rng.choice(PROMPTS[:5]), max_tokens=rng.randint(1, 20), n=rng.randint(1, 3), sampling=Sampling(seed=number),
                on_text=lambda i, piece, number=number: told.setdefault((number, i), []).append(piece),
                on_end=ended.append)
            request.number = number
            open_requests.append(request)
        except RequestError as error:
            assert "context" in str(error)
        engine.step()
        if rng.random() < 0.2:
            engine.cancel(open_requests.pop(rng.randrange(len(open_requests))))
        engine.blocks.check([s.table for s in engine.scheduler.running])
    while engine.step():
        pass
    assert idle(engine) and len(ended) == len(set(map(id, ended))) > 50
    for request in ended:
        assert request.done and not request.error
        for i, result in enumerate(request.results):
            assert "".join(told.get((request.number, i), [])) == result.text


def test_one_that_fails_does_not_take_the_others_with_it():
    made = loaded()
    engine = LLM(made)
    every = [[i] for i in range(made.model.config.vocab_size)]
    bad = engine.submit("import", sampling=Sampling(bad_words=every), max_tokens=5)
    good = engine.submit("import os", sampling=GREEDY, max_tokens=5)
    while engine.step():
        pass
    assert "no token to choose" in str(bad.error) and bad.done
    assert good.results[0].ids == generate(made.model, made.tokenizer, "import os", max_tokens=5, sampling=GREEDY)[0].ids
    assert idle(engine)
    with torch.no_grad():
        made.model.norm.weight.fill_(float("nan"))
    with pytest.raises(WorkError, match="not finite"):
        engine.generate("x", max_tokens=3)
    assert idle(engine)


def test_what_can_never_be_answered_is_refused_at_once():
    made = loaded()
    engine = LLM(made, memory=memory(made, 4, 4), block=4)
    with pytest.raises(RequestError, match="do not fit into the cache"):
        engine.submit("x" * 20, max_tokens=10)
    for options, said in ((dict(max_tokens=0), "max_tokens 0"), (dict(stop=""), "stop string is empty")):
        with pytest.raises(RequestError, match=said):
            engine.submit("x", **options)
    with pytest.raises(RequestError, match="no memory for a block"):
        LLM(made, memory=10)
    assert idle(engine)


def test_blocks_of_one_name_are_told_apart_by_their_tokens(monkeypatch):
    """A hash that says little: many texts have the same."""
    from llmwright.engine import blocks

    true = blocks.name_of
    monkeypatch.setattr(blocks, "name_of", lambda after, tokens: bytes([true(after, tokens)[0] & 1]))
    made = loaded()
    plain = generate(made.model, made.tokenizer, PROMPTS, max_tokens=30, sampling=GREEDY)
    engine = LLM(made, block=4)
    for _ in range(3):
        assert [r.ids for r in engine.generate(PROMPTS, max_tokens=30, temperature=0.0)] == [r.ids for r in plain]
        assert idle(engine)
