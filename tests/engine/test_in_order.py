"""Any number of prompts are answered in their order, asked for only when there is room, and what fails fails in its place."""

import pytest
from test_llm import idle, loaded

from llmwright.engine.in_order import AHEAD, WAITING, answers
from llmwright.engine.llm import LLM
from llmwright.engine.sampler import GREEDY
from llmwright.errors import RequestError


def test_answers_come_in_order_however_long_each_takes():
    made = loaded()
    engine, asked = LLM(made, max_texts=3, block=4), []

    def every():
        for i in range(40):
            asked.append(i)
            yield dict(prompt=[i + 1, 2], max_tokens=1 + 30 * (i % 5 == 0), sampling=GREEDY)

    for i, results in enumerate(answers(engine, every())):
        wanted = made.generate([[i + 1, 2]], max_tokens=1 + 30 * (i % 5 == 0), greedy=True)
        assert [r.ids for r in results] == [r.ids for r in wanted]
        assert len(asked) <= i + 1 + WAITING * 3
    assert len(asked) == 40 and idle(engine)
    assert list(answers(engine, [])) == []


def test_one_long_text_holds_back_so_many_answers_and_no_more():
    engine, asked = LLM(loaded(), max_texts=2, block=4), []

    def every():
        for i in range(100_000):
            asked.append(i)
            yield dict(prompt=[1], max_tokens=1 if i else 60, sampling=GREEDY)

    found = answers(engine, every())
    next(found)
    assert AHEAD * 2 <= len(asked) <= WAITING * 2
    found.close()  # nobody wants the rest
    assert idle(engine)


def test_an_error_comes_in_its_place_and_the_rest_is_given_up():
    engine = LLM(loaded(), max_texts=2, block=4)
    every = [[i] for i in range(450)]
    for bad, said in ((dict(prompt=[10_000]), "token id 10000"),
                      (dict(prompt=[1], sampling=GREEDY.__class__(bad_words=every)), "no token to choose")):
        found = answers(engine, [dict(prompt=[1], max_tokens=9, sampling=GREEDY), bad, dict(prompt=[2]), dict(prompt=[3])])
        assert len(next(found)) == 1
        with pytest.raises(RequestError, match=said):
            next(found)
        assert idle(engine)
