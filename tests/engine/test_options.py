"""Options that contradict each other, or mean nothing, are refused; the others become what the engine takes."""

import pytest

from llmwright.engine.beam import Beams
from llmwright.engine.options import choose
from llmwright.engine.sampler import GREEDY, Sampling
from llmwright.errors import RequestError

DRAWING = Sampling(temperature=0.8, top_p=0.95)


@pytest.mark.parametrize("given, default, wanted", [
    ({}, DRAWING, DRAWING),
    ({}, GREEDY, GREEDY),
    ({"temperature": 0.5, "top_k": None}, DRAWING, Sampling(0.5, top_p=0.95)),
    ({"top_p": 0.5}, GREEDY, Sampling(top_p=0.5)),  # drawing was asked for
    ({"seed": 3}, GREEDY, Sampling(0.0, seed=3)),
    ({"temperature": 0}, DRAWING, GREEDY),
    ({"greedy": True}, DRAWING, GREEDY),
    ({"greedy": True, "temperature": 0.0}, DRAWING, GREEDY),
    ({"greedy": True, "top_k": 0, "repetition_penalty": 1.2}, DRAWING, Sampling(0, repetition_penalty=1.2)),
    ({"min_p": 0.1, "bad_words": ["x"]}, DRAWING, Sampling(0.8, top_p=0.95, min_p=0.1, bad_words=["x"])),
])
def test_what_is_given_and_the_default_make_the_choice(given, default, wanted):
    assert choose(given, default) == (wanted, None)


def test_beams_search_and_keep_the_penalties():
    sampling, beams = choose({"beams": 3, "length_penalty": 0.6, "early_stopping": True, "min_tokens": 2}, DRAWING)
    assert beams == Beams(3, 0.6, True) and sampling == Sampling(0.0, min_tokens=2)


@pytest.mark.parametrize("given, n, said", [
    ({"greedy": True, "temperature": 0.7}, 1, "greedy and temperature 0.7 contradict"),
    ({"greedy": True, "top_p": 0.9}, 1, "greedy and top_p 0.9 contradict"),
    ({"temperature": 0, "top_k": 5}, 1, "temperature 0 and top_k 5 contradict"),
    ({"temperature": 1e-9, "typical": 0.5}, 1, "typical 0.5 contradict"),
    ({"beams": 4, "temperature": 0.7}, 1, "beams and temperature 0.7 contradict"),
    ({"beams": 4, "min_p": 0.1}, 1, "beams and min_p 0.1 contradict"),
    ({"beams": 4, "greedy": True}, 1, "beams and greedy contradict"),
    ({"length_penalty": 0.5}, 1, "length_penalty 0.5 is for a beam search"),
    ({"early_stopping": True}, 1, "early_stopping True is for a beam search"),
    ({"greedy": True}, 3, "n 3 and greedy contradict"),
    ({"temperature": 0}, 2, "n 2 and greedy contradict"),
    ({"beams": 0}, 1, "beams 0"), ({"beams": 2.5}, 1, "beams 2.5"),
    ({"beams": 2, "early_stopping": "soon"}, 1, "'soon'"),
    ({"beams": 2, "length_penalty": float("nan")}, 1, "length_penalty nan"),
    ({"heat": 1}, 1, "no option heat"), ({"top_p": 3, "greedy": True}, 1, "top_p 3"),
])
def test_a_contradiction_is_one_clear_line(given, n, said):
    with pytest.raises(RequestError, match=said) as caught:
        choose(given, DRAWING, n)
    assert "\n" not in str(caught.value)
