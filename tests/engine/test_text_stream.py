"""Text that comes piece by piece is the text that comes at once."""

import pytest
from hypothesis import given, settings, strategies as st
from small import tokenizer

from llmwright.engine.text_stream import TextStream

KINDS = ["bpe", "unigram", "wordpiece", "bytes", "chars"]


def stream(t, prompt, ids, stop=()):
    made = TextStream(t, t.encode(prompt), stop)
    pieces = []
    for i in ids:
        pieces.append(made.push(i))
        if made.stopped:
            return made, pieces
    return made, [*pieces, made.finish()]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=20), text=st.text(max_size=60))
def test_pieces_join_to_the_text(kind, prompt, text):
    t = tokenizer(kind)
    ids = t.encode(text)
    made, pieces = stream(t, prompt, ids)
    assert "".join(pieces) == made.text == t.decode(ids)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_come_out_as_they_decode(ids):
    t = tokenizer("bytes")
    made, pieces = stream(t, "a", ids)
    assert "".join(pieces) == made.text == t.decode(ids)


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=40), stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_at_its_first_place(text, stops):
    t = tokenizer("bytes")
    made, pieces = stream(t, "", t.encode(text), tuple(stops))
    # the first that is complete, and of those that end together the longest, which began first
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(s) for s in stops)]
    wanted = text
    if ends:
        wanted = min((text[: ends[0] - len(s)] for s in stops if text[: ends[0]].endswith(s)), key=len)
    assert made.stopped == bool(ends)
    assert "".join(pieces) == made.text == wanted


def test_a_space_before_the_first_token_is_kept(request):
    """SentencePiece writes the space into the token, and its decoder drops it at a text's beginning."""
    from pathlib import Path

    file = Path(__file__).parents[2].parent / "shared" / "data" / "llama_tokenizer"
    if not file.exists():
        pytest.skip("needs ../shared/data/llama_tokenizer")
    from llmwright.tokens.load import load

    t = load(file)
    whole = t.encode("Hello world, again")
    split = len(t.encode("Hello"))
    made = TextStream(t, whole[:split])
    assert "".join([*map(made.push, whole[split:]), made.finish()]) == " world, again"


def test_what_is_missing_of_a_prompts_last_character_is_not_given_out():
    from small import tokenizer

    t = tokenizer()
    half = [i for i in range(t.vocab_size) if t.token_bytes(i) == "é".encode()[:1]]
    rest = [i for i in range(t.vocab_size) if t.token_bytes(i) == "é".encode()[1:]]
    (x,) = t.encode("x")
    whole, broken = TextStream(t, half), TextStream(t, half)
    assert half and rest and whole.push(rest[0]) == "é"
    assert broken.push(x) == "x" and broken.finish() == "" and broken.text == "x"
