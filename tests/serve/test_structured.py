"""Answers that must follow a schema or a grammar do, whatever the model would rather say; bad grammars are refused."""

import json
import re

import pytest

pytest.importorskip("llguidance", reason="needs llguidance")
CHAT = {"messages": [{"role": "user", "content": "import os"}]}
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["name", "age", "tags"],
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99},
                   "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
}


def form(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def test_answers_follow_a_json_schema(server):
    found = server.post("/v1/chat/completions", **CHAT, n=4, seed=3, max_tokens=120, temperature=1.0,
                        response_format=form(SCHEMA)).json()["choices"]
    for choice in found:
        assert choice["finish_reason"] == "stop", choice
        data = json.loads(choice["message"]["content"])
        assert set(data) == {"name", "age", "tags"} and 0 <= data["age"] <= 99 and len(data["name"]) <= 8
        assert set(data["tags"]) <= {"a", "b"} and len(data["tags"]) <= 2
    events = server.stream("/v1/chat/completions", **CHAT, seed=3, max_tokens=120, response_format=form(SCHEMA))
    assert set(json.loads("".join(e["choices"][0]["delta"].get("content", "") for e in events))) == {"name", "age", "tags"}


def test_an_answer_may_be_any_json_object(server):
    text = server.complete(prompt="x", max_tokens=150, temperature=0, response_format={"type": "json_object"})["choices"][0]
    if text["finish_reason"] == "stop":
        assert isinstance(json.loads(text["text"]), dict)
    assert text["text"].lstrip().startswith("{")


def test_answers_follow_a_regular_expression_and_a_grammar(server):
    def ask(syntax: str, definition: str) -> list[str]:
        found = server.complete(prompt="x", n=3, max_tokens=60, temperature=1.5, response_format={
            "type": "grammar", "grammar": {"syntax": syntax, "definition": definition}})["choices"]
        assert all(c["finish_reason"] == "stop" for c in found)
        return [c["text"] for c in found]

    for text in ask("regex", r"(yes|no), [0-9]{2,4}!"):
        assert re.fullmatch(r"(yes|no), [0-9]{2,4}!", text)
    for text in ask("lark", 'start: greeting " " NAME "."\ngreeting: "Hello" | "Größe"\nNAME: /[A-Z][a-z]{1,5}/'):
        assert re.fullmatch(r"(Hello|Größe) [A-Z][a-z]{1,5}\.", text)


@pytest.mark.parametrize("wanted, param", [
    (form({"type": "nothing"}), "response_format.json_schema.schema"),
    (form({"$ref": "#/nowhere"}), "response_format.json_schema.schema"),
    (form({"$ref": "http://example.com/x.json"}), "response_format.json_schema.schema"),
    ({"type": "json_schema"}, "response_format"), ({"type": "xml"}, "response_format.type"), ("json", "response_format"),
    ({"type": "grammar", "grammar": {"syntax": "regex", "definition": "(a"}}, "response_format.grammar"),
    ({"type": "grammar", "grammar": {"syntax": "regex", "definition": "a{1000000}{1000000}"}}, "response_format"),
    ({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: nothing"}}, "response_format.grammar"),
    ({"type": "grammar", "grammar": {"syntax": "lark", "definition": "🙂 ("}}, "response_format.grammar"),
    ({"type": "grammar", "grammar": {"syntax": "ebnf", "definition": "x"}}, "response_format.grammar.syntax"),
])
def test_a_grammar_that_cannot_be_read_is_refused_and_hurts_nobody(server, wanted, param):
    answer = server.post("/v1/chat/completions", **CHAT, response_format=wanted)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith(param), answer.text
    assert server.complete(prompt="x", max_tokens=1)


def test_a_grammar_that_other_settings_leave_no_way_through_is_refused(server):
    answer = server.post("/v1/completions", prompt="x", max_tokens=20, bad_words=["a", "b"], response_format={
        "type": "grammar", "grammar": {"syntax": "regex", "definition": "[ab]+"}})
    assert answer.status_code == 400 and "leave no token" in answer.json()["error"]["message"], answer.text
    server.idle()
