"""What a client gets: OpenAI's forms, the same text streamed or whole, parameters honoured or refused by name."""

import json
import math

import pytest

from llmwright.engine.language_model import load

CHAT = [{"role": "user", "content": "import os"}]
GREEDY = dict(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def plain(small_model):
    return load(small_model)


def test_a_completion_is_what_plain_generation_gives(server, plain):
    found = server.complete(prompt="import os", **GREEDY)
    wanted = plain.generate("import os", max_tokens=12, greedy=True)
    assert found["choices"][0]["text"] == wanted.text and found["object"] == "text_completion"
    assert found["choices"][0]["finish_reason"] == wanted.finish_reason and found["model"] == "m"
    n = len(plain.tokenizer.encode("import os")) + (plain.tokenizer.bos_id is not None and found["usage"]["prompt_tokens"] !=
                                                    len(plain.tokenizer.encode("import os")))
    usage = {key: value for key, value in found["usage"].items() if key != "prompt_tokens_details"}
    assert usage == {"prompt_tokens": n, "completion_tokens": len(wanted.ids), "total_tokens": n + len(wanted.ids)}


def test_a_chat_is_the_template_s_answer(server, plain):
    found = server.post("/v1/chat/completions", messages=CHAT, **GREEDY).json()
    wanted = plain.chat(CHAT, max_tokens=12, greedy=True)
    assert found["choices"][0]["message"] == {"role": "assistant", "content": wanted.text, "refusal": None}
    parts = [{"role": "user", "content": [{"type": "text", "text": "import os"}]}]
    assert server.post("/v1/chat/completions", messages=parts, **GREEDY).json()["choices"] == found["choices"]


def test_token_ids_and_lists_of_prompts_are_prompts(server, plain):
    ids = [int(i) for i in plain.tokenizer.encode("import os")]
    texts = [c["text"] for c in server.complete(prompt=[ids, ids[:3]], **GREEDY)["choices"]]
    alone = [server.complete(prompt=p, **GREEDY)["choices"][0]["text"] for p in (ids, ids[:3])]
    assert texts == alone
    several = server.complete(prompt=["a", "b"], n=2, seed=1, max_tokens=4)["choices"]
    assert [c["index"] for c in several] == [0, 1, 2, 3] and several[0]["text"] != several[1]["text"]


def test_a_stream_says_what_the_whole_answer_says(server):
    for path, ask in (("/v1/completions", {"prompt": "import os", "logprobs": 2}),
                      ("/v1/chat/completions", {"messages": CHAT, "logprobs": True, "top_logprobs": 2})):
        how = dict(**ask, max_tokens=20, n=2, seed=7, temperature=1.2)
        whole = server.post(path, **how).json()
        events = server.stream(path, **how, stream_options={"include_usage": True})
        assert {k: v for k, v in events[-1]["usage"].items() if k != "prompt_tokens_details"} == {
            k: v for k, v in whole["usage"].items() if k != "prompt_tokens_details"}
        assert events[-1]["choices"] == [] and all(e["usage"] is None for e in events[:-1])
        for i, choice in enumerate(whole["choices"]):
            parts = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == i]
            if "messages" in ask:
                assert parts[0]["delta"]["role"] == "assistant"
                assert "".join(p["delta"].get("content", "") for p in parts) == choice["message"]["content"]
                found = [entry for p in parts if p["logprobs"] for entry in p["logprobs"]["content"]]
                assert found == choice["logprobs"]["content"]
            else:
                assert "".join(p["text"] for p in parts) == choice["text"]
                for key in ("tokens", "token_logprobs", "text_offset"):
                    assert [v for p in parts if p["logprobs"] for v in p["logprobs"][key]] == choice["logprobs"][key], key
            assert [p["finish_reason"] for p in parts][-1] == choice["finish_reason"]
            assert all(p["finish_reason"] is None for p in parts[:-1])


def test_log_probabilities_are_the_model_s(server, plain):
    wanted = plain.generate("import os", max_tokens=5, greedy=True, top_log_probs=3)
    found = server.complete(prompt="import os", temperature=0, max_tokens=5, logprobs=3)["choices"][0]["logprobs"]
    assert found["token_logprobs"] == pytest.approx(wanted.log_probs, abs=1e-4)
    for ours, theirs in zip(found["top_logprobs"], wanted.top_log_probs):
        assert sorted(ours.values()) == pytest.approx(sorted(value for _, value in theirs), abs=1e-4)
    chat = server.post("/v1/chat/completions", messages=CHAT, temperature=0, max_tokens=5, logprobs=True,
                       top_logprobs=1).json()["choices"][0]["logprobs"]["content"]
    for entry in chat:  # greedy: the chosen one is the likeliest
        assert entry["top_logprobs"][0]["bytes"] == entry["bytes"] and entry["logprob"] <= 0


def test_parameters_do_what_they_say(server, plain):
    text = server.complete(prompt="import os", **GREEDY)["choices"][0]["text"]
    cut = server.complete(prompt="import os", stop=text[3:6], **GREEDY)["choices"][0]
    assert cut["text"] == text[: text.index(text[3:6])] and cut["finish_reason"] == "stop"
    seeded = [server.complete(prompt="x", seed=5, max_tokens=8)["choices"][0]["text"] for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert len({c["text"] for c in server.complete(prompt="x", n=4, max_tokens=8)["choices"]}) > 1
    first = int(plain.generate("import os", max_tokens=1, greedy=True).ids[0])
    banned = server.complete(prompt="import os", logit_bias={str(first): -100}, logprobs=1, **GREEDY)
    wanted = plain.generate("import os", max_tokens=12, greedy=True, logit_bias={first: -100})
    assert banned["choices"][0]["text"] == wanted.text != text
    for options in (dict(frequency_penalty=1.5), dict(presence_penalty=2.0), dict(repetition_penalty=1.7),
                    dict(min_tokens=12), dict(bad_words=["e", "."])):
        wanted = plain.generate("import os", max_tokens=12, greedy=True, **options).text
        assert server.complete(prompt="import os", **GREEDY, **options)["choices"][0]["text"] == wanted, options
    for options in (dict(top_k=1), dict(top_p=1e-6), dict(min_p=1.0)):
        assert server.complete(prompt="import os", max_tokens=12, **options)["choices"][0]["text"] == text, options
    long = server.complete(prompt="import os", max_tokens=40, ignore_eos=True)
    assert long["usage"]["completion_tokens"] == 40
    echoed = server.complete(prompt=["import os"], echo=True, **GREEDY)["choices"][0]["text"]
    assert echoed == "import os" + text
    parts = server.stream("/v1/completions", prompt="import os", echo=True, **GREEDY)
    assert "".join(p["choices"][0]["text"] for p in parts) == echoed


def test_an_answer_that_was_begun_goes_on(server, plain):
    begun = [*CHAT, {"role": "assistant", "content": "def"}]
    found = server.post("/v1/chat/completions", messages=begun, continue_final_message=True, **GREEDY).json()
    assert found["choices"][0]["message"]["content"] == plain.chat(begun, max_tokens=12, greedy=True).text


def test_what_was_read_is_found_again_and_told(server):
    prompt = "class Reader:\n    def read(self):\n        return self.text\n" * 2
    first, second = (server.complete(prompt=prompt, **GREEDY) for _ in range(2))
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 17
    assert first["choices"][0]["text"] == second["choices"][0]["text"]


COMPLETE = "/v1/completions"
WRONG = [  # (body, the parameter that the error names)
    (dict(prompt="x", foo=1), "foo"), (dict(prompt="x", best_of=3), "best_of"), (dict(prompt="x", suffix="y"), "suffix"),
    (dict(), "prompt"), (dict(prompt=3), "prompt"), (dict(prompt=[]), "prompt"), (dict(prompt=[[]]), "prompt"),
    (dict(prompt=[1.5]), "prompt"), (dict(prompt=[999_999]), "prompt"), (dict(prompt=[-1]), "prompt"),
    (dict(prompt="x", max_tokens=0), "max_tokens"), (dict(prompt="x", max_tokens=-5), "max_tokens"),
    (dict(prompt="x", max_tokens=10**30), "max_tokens"), (dict(prompt="x", max_tokens="5"), "max_tokens"),
    (dict(prompt="x", max_tokens=5000), "max_tokens"), (dict(prompt="x", max_tokens=True), "max_tokens"),
    (dict(prompt="x " * 5000), "prompt"), (dict(prompt="x", temperature=-0.1), "temperature"),
    (dict(prompt="x", temperature=2.5), "temperature"), (dict(prompt="x", temperature="hot"), "temperature"),
    (dict(prompt="x", top_p=0), "top_p"), (dict(prompt="x", top_p=1.1), "top_p"), (dict(prompt="x", top_k=-1), "top_k"),
    (dict(prompt="x", min_p=-1), "min_p"), (dict(prompt="x", n=0), "n"), (dict(prompt="x", n=1000), "n"),
    (dict(prompt="x", seed=2**70), "seed"), (dict(prompt="x", stop=""), "stop"), (dict(prompt="x", stop=["a", ""]), "stop"),
    (dict(prompt="x", stop=["a"] * 17), "stop"), (dict(prompt="x", presence_penalty=3), "presence_penalty"),
    (dict(prompt="x", frequency_penalty=-3), "frequency_penalty"), (dict(prompt="x", logit_bias={"a": 1}), "logit_bias"),
    (dict(prompt="x", logit_bias={"1": 1000}), "logit_bias"), (dict(prompt="x", logit_bias={"999999": 1}), None),
    (dict(prompt="x", logprobs=21), "logprobs"), (dict(prompt="x", logprobs=-1), "logprobs"),
    (dict(prompt="x " * 300, echo=True, max_tokens=0), "prompt"), (dict(prompt="x", stream="yes"), "stream"),
    (dict(prompt="x", stream_options={"include_usage": True}), None), (dict(prompt="x", min_tokens=20), "min_tokens"),
    (dict(prompt="x", stop_token_ids=[-1]), "stop_token_ids"), (dict(prompt="x", stop_token_ids=[10**6]), None),
    (dict(prompt="x", user="u" * 300), "user"), (dict(prompt=["x"] * 5000), "n"), (dict(prompt="x", bad_words=[""]), "bad_words"),
]
CHAT_WRONG = [
    (dict(), "messages"), (dict(messages=[]), "messages"), (dict(messages="hello"), "messages"),
    (dict(messages=[{"role": "king", "content": "x"}]), "messages[0].role"),
    (dict(messages=[{"role": "user"}]), "messages[0]"), (dict(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (dict(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]), "messages[0].content"),
    (dict(messages=CHAT, functions=[{"name": "f"}]), "functions"), (dict(messages=CHAT, audio={}), "audio"),
    (dict(messages=CHAT, top_logprobs=3), None), (dict(messages=CHAT, max_tokens=3, max_completion_tokens=4), None),
    (dict(messages=CHAT, tool_choice="required"), None), (dict(messages=CHAT, chat_template="{{ 1 }}"), "chat_template"),
    (dict(messages=CHAT, chat_template_kwargs={"tools": []}), "chat_template_kwargs"),
    (dict(messages=[{"role": "user", "content": "refuse"}]), "messages"),
    (dict(messages=[{"role": "user", "content": "loop"}]), "messages"),
    (dict(messages=[{"role": "user", "content": "x"}, {"role": "tool", "content": None}]), "messages[1]"),
    (dict(messages=[{"role": "user", "content": "x " * 4000}]), "messages"),
]


@pytest.mark.parametrize("path, cases", [(COMPLETE, WRONG), ("/v1/chat/completions", CHAT_WRONG)])
def test_what_is_wrong_is_refused_by_name_and_hurts_nobody(server, path, cases):
    for body, param in cases:
        answer = server.post(path, **body)
        error = answer.json()["error"]
        assert answer.status_code == 400, (body, answer.text[:300])
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
        assert error["message"] and (param is None or (error["param"] or "").startswith(param)), (body, error)
    assert server.complete(prompt="x", max_tokens=2)["usage"]["completion_tokens"] == 2
    server.idle()


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model": "m", "prompt": "x", "temperature": NaN}',
    b'{"model": "m", "prompt": "x", "temperature": Infinity}', b'{"model": "m", "prompt": "x", "temperature": 1e999}',
    b'{"model": "m", "prompt": "\\ud800"}', b'{"model": "m", "prompt": "\xed\xa0\x80"}', b'{"a":' * 100_000,
    b'{"model": "m", "prompt": "x", "seed": ' + b"9" * 10_000 + b"}", b'{"model": "m", "prompt": "x"} x', b"[" * 10_000,
    b'{"model": "m", "prompt": "x", "max_tokens": -0.5}', b'{"model": "m", "prompt": {"a": 1}}',
])
def test_a_malformed_body_is_refused(server, body):
    answer = server.client.post(COMPLETE, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text


def test_what_asks_for_nothing_is_taken(server):
    server.complete(prompt="x", max_tokens=1, best_of=1, suffix=None, user="someone", store=False, stop=None, logprobs=None)


def test_errors_have_one_shape_everywhere(server):
    for answer, status in (
        (server.client.get("/nowhere"), 404), (server.client.get(COMPLETE), 405), (server.client.delete("/v1/models"), 405),
        (server.post(COMPLETE, model="other", prompt="x"), 404), (server.client.get("/v1/models/other"), 404),
        (server.client.post(COMPLETE, content=b"x", headers={"content-type": "text/plain"}), 415),
        (server.client.post(COMPLETE, data={"a": "b"}), 415), (server.post("/v1/embeddings", input="x"), 400),
        (server.client.post("/v1/completions/", json={}), 404),
    ):
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"} and answer.headers["x-request-id"]


def test_models_tokens_pages_and_schema(server, plain):
    listed = server.client.get("/v1/models").json()["data"]
    assert [m["id"] for m in listed] == ["m"] and listed[0]["max_model_len"] == 512
    assert server.client.get("/v1/models/m").json() == listed[0]
    text = "Größe <|endoftext|> 🙂"
    found = server.post("/tokenize", prompt=text, return_token_strs=True).json()
    assert found["tokens"][-5:] == [int(i) for i in plain.tokenizer.encode(text)][-5:] and found["count"] == len(found["tokens"])
    assert server.post("/detokenize", tokens=found["tokens"]).json()["prompt"].endswith(text)
    assert len(found["token_strs"]) == found["count"]
    chat = server.post("/tokenize", messages=CHAT).json()
    assert server.post("/v1/chat/completions", messages=CHAT, max_tokens=1).json()["usage"]["prompt_tokens"] == chat["count"]
    for body in (dict(tokens=[10**9]), dict(tokens=["a"])):
        assert server.post("/detokenize", **body).status_code == 400
    assert server.post("/tokenize").status_code == 400
    page = server.client.get("/")
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and policy.startswith("default-src 'none'") and "unsafe" not in policy
    docs = server.client.get("/docs")
    assert "/v1/chat/completions" in docs.text and "http" not in docs.text.replace("/openapi.json", "").lower().split("<h1>")[1]
    assert server.client.get("/openapi.json").json()["paths"].keys() >= {"/v1/chat/completions", "/metrics", "/ready"}
    assert server.client.get("/health").json()["status"] == "ok" and server.client.get("/ready").status_code == 200


def test_metrics_are_exact(server):
    before = server.idle()
    for i in range(10):
        how = dict(prompt=f"import {i}", max_tokens=10, ignore_eos=True)
        if i % 2:
            server.stream(COMPLETE, **how)
        else:
            server.complete(**how)
    after = server.idle()

    def more(name: str) -> float:
        return after[name] - before[name]

    assert more("vllm:generation_tokens_total") == 100 and more("vllm:request_success_total{finished_reason=length}") == 10
    lengths = [server.post("/tokenize", prompt=f"import {i}").json()["count"] for i in range(10)]
    assert more("vllm:prompt_tokens_total") == sum(lengths) == more("vllm:prefix_cache_queries_total")
    for name, count in (("time_to_first_token_seconds", 10), ("inter_token_latency_seconds", 90),
                        ("e2e_request_latency_seconds", 10), ("request_queue_time_seconds", 10),
                        ("request_prompt_tokens", 10), ("request_generation_tokens", 10)):
        assert more(f"vllm:{name}_count") == count, name
    assert more("vllm:request_generation_tokens_sum") == 100 and more("vllm:request_prompt_tokens_sum") == sum(lengths)
    assert after["llmwright:generation_tokens_per_second"] > 0 and after["llmwright:ready"] == 1
    server.post(COMPLETE, prompt="x", n=0)
    name = "llmwright:requests_failed_total{reason=bad_request}"
    assert server.metrics()[name] == after.get(name, 0) + 1


def test_the_log_has_one_line_a_request_and_no_text(server):
    answer = server.client.post(COMPLETE, json={"model": "m", "prompt": "secret", "max_tokens": 3, "user": "u"},
                                headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    server.complete(prompt="x", max_tokens=1)
    lines = [line for line in server.log() if line["event"] == "request"]
    found = [line for line in lines if line["id"] == "mine-1"]
    assert len(found) == 1 and found[0]["tokens"] == 3 and found[0]["finish_reason"] == "length" and found[0]["user"] == "u"
    for key in ("queue_s", "first_token_s", "total_s", "prompt_tokens", "cached_tokens", "status", "path"):
        assert not math.isnan(found[0][key]) if isinstance(found[0][key], float) else found[0][key] is not None
    assert "secret" not in json.dumps(lines)


def test_a_conversation_of_which_nothing_is_said_is_answered_as_chat_does(server):
    usual = server.client.get("/v1/models").json()["data"][0]["chat_defaults"]
    assert usual == {"temperature": 0.2, "top_k": 0, "top_p": 0.9, "min_p": 0.0, "repetition_penalty": 1.1}
    ask = dict(messages=CHAT, seed=5, max_tokens=20)
    plain, said = server.post("/v1/chat/completions", **ask), server.post("/v1/chat/completions", **ask, **usual)
    warm = server.post("/v1/chat/completions", **ask, temperature=1.0)
    text = [answer.json()["choices"][0]["message"]["content"] for answer in (plain, said, warm)]
    assert text[0] == text[1] != text[2]

