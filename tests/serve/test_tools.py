"""Calls in what a model wrote are found, whole or piece by piece; what is none stays text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.serve.tools import Parser

TAGS, BARE = Parser("tags", {"weather", "time"}), Parser("json", {"weather", "time"})
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
OTHER = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'


@pytest.mark.parametrize("parser, text, rest, names", [
    (TAGS, "Hello.", "Hello.", []), (TAGS, CALL, "", ["weather"]), (TAGS, f"Let me see. {CALL}", "Let me see.", ["weather"]),
    (TAGS, CALL + "\n" + OTHER, "", ["weather", "time"]),
    (TAGS, CALL.removesuffix("</tool_call>"), "", ["weather"]),  # its end may be a token that is not shown
    (TAGS, '<tool_call>{"name": "rob", "arguments": {}}</tool_call>', '<tool_call>{"name": "rob", "arguments": {}}</tool_call>', []),
    (TAGS, "<tool_call>{no json</tool_call> x", "<tool_call>{no json</tool_call> x", []), (TAGS, "a < b <tool", "a < b <tool", []),
    (TAGS, '<tool_call>{"name": "time", "arguments": 5}</tool_call>', '<tool_call>{"name": "time", "arguments": 5}</tool_call>', []),
    (BARE, '{"name": "weather", "parameters": {"city": "Oslo"}}', "", ["weather"]), (BARE, '{"a": 1}', '{"a": 1}', []),
    (BARE, "It is {sunny}.", "It is {sunny}.", []), (TAGS, "", "", []),
])
def test_calls_are_found_and_the_rest_stays(parser, text, rest, names):
    found, calls = parser.split(text)
    assert (found, [c["function"]["name"] for c in calls]) == (rest, names)
    assert all(c["type"] == "function" and c["id"].startswith("call_") for c in calls)
    assert len({c["id"] for c in calls}) == len(calls)
    for call in calls:
        assert isinstance(json.loads(call["function"]["arguments"]), dict)


@given(st.sampled_from(["Hello <b>.", CALL, f"See: {CALL}{OTHER}", "a <tool_cal x", "<<tool_call", OTHER + "<tool_call>x"]),
       st.lists(st.integers(0, 120), max_size=12), st.sampled_from([TAGS, BARE]))
def test_a_stream_says_the_same_however_it_is_cut(text, cuts, parser):
    places = sorted({min(c, len(text)) for c in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in zip(places, places[1:])] or [""]
    holder, said, calls = parser.holder(), "", []
    for i, piece in enumerate(pieces):
        now, found = holder.take(piece, i == len(pieces) - 1)
        said, calls = said + now, calls + found
        assert "<tool_call>" not in said or i == len(pieces) - 1 or parser is BARE
    wanted, all_calls = parser.split(text)
    assert said.strip() == wanted.strip()
    assert [c["function"] for c in calls] == [c["function"] for c in all_calls]
