"""`echo` with `logprobs`: the log-probabilities of a prompt, in OpenAI's form, as evaluation harnesses ask for them."""

import pytest
import torch
import transformers

from llmwright.engine.language_model import load

PROMPT = "class Größe(object):\n    x = '🙂你'\n"


@pytest.fixture(scope="module")
def plain(small_model):
    return load(small_model)


@pytest.fixture(scope="module")
def theirs(small_model):
    return transformers.AutoModelForCausalLM.from_pretrained(small_model).eval()


def scores(theirs, ids: list[int]) -> list[float]:
    """Of each token after the first."""
    with torch.no_grad():
        log_probs = theirs(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return log_probs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


def test_a_prompt_alone_has_the_log_probabilities_of_transformers(server, plain, theirs):
    ids = [int(i) for i in plain.tokenizer.encode(PROMPT)]
    found = server.complete(prompt=ids, echo=True, max_tokens=0, logprobs=2)
    choice = found["choices"][0]
    told = choice["logprobs"]
    assert choice["text"] == PROMPT and choice["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 0 and found["usage"]["prompt_tokens"] == len(ids)
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    assert told["token_logprobs"][1:] == pytest.approx(scores(theirs, ids), abs=1e-4)
    assert all(len(place) == 2 for place in told["top_logprobs"][1:])
    # where each token begins in the text, one that begins inside a character at that character
    content, at = b"", []
    for i in ids:
        at.append(len(content.decode(errors="ignore")))
        content += plain.tokenizer.token_bytes(i)
    assert told["text_offset"] == at and content.decode() == PROMPT
    again = server.complete(prompt=PROMPT, echo=True, max_tokens=0, logprobs=2)["choices"][0]["logprobs"]
    assert again["tokens"][-len(ids):] == told["tokens"]
    assert server.complete(prompt=PROMPT, echo=True, max_tokens=0)["choices"][0] == {**choice, "logprobs": None}


def test_what_follows_comes_after_the_prompt_streamed_or_whole(server, plain, theirs):
    ids = [int(i) for i in plain.tokenizer.encode("import os")]
    for n in (1, 2):
        how = dict(prompt=[ids, ids[:1]], echo=True, logprobs=1, max_tokens=6, seed=3, n=n)
        whole = server.complete(**how)
        written = 0
        for i, choice in enumerate(whole["choices"]):
            told, start = choice["logprobs"], ids if i < n else ids[:1]
            assert len({len(values) for values in told.values()}) == 1
            assert told["token_logprobs"][: len(start)] == [None, *map(pytest.approx, scores(theirs, start))]
            assert None not in told["token_logprobs"][1:]
            written += len(told["tokens"]) - len(start)
        assert written == whole["usage"]["completion_tokens"]
        events = server.stream("/v1/completions", **how)
        for i, choice in enumerate(whole["choices"]):
            parts = [e["choices"][0] for e in events if e["choices"][0]["index"] == i]
            assert "".join(p["text"] for p in parts) == choice["text"]
            for key, values in choice["logprobs"].items():
                streamed = [v for p in parts if p["logprobs"] for v in p["logprobs"][key]]
                if key == "token_logprobs":
                    assert streamed == [v if v is None else pytest.approx(v, abs=1e-4) for v in values]
                elif key != "top_logprobs":
                    assert streamed == values, key


def test_a_harness_finds_the_log_likelihood_of_a_continuation(server, plain, theirs):
    """The request and the reading of lm-eval's `local-completions`: the last of the tokens, which is written, is cut."""
    context, continuation = plain.tokenizer.encode("import os\n"), plain.tokenizer.encode("def main(self):\n    pass")
    ids, start = [int(i) for i in [*context, *continuation]], len(context)
    asked = dict(prompt=[ids, ids[1:]], max_tokens=1, logprobs=1, seed=1234, echo=True)
    for choice, some, at in zip(server.complete(**asked)["choices"], (ids, ids[1:]), (start, start - 1), strict=True):
        tokens = choice["logprobs"]["token_logprobs"][at:-1]
        best = [max(place.values()) for place in choice["logprobs"]["top_logprobs"][at:-1]]
        assert sum(tokens) == pytest.approx(sum(scores(theirs, some)[at - 1 :]), abs=1e-3)
        assert all(one <= other for one, other in zip(tokens, best))
    # greedily written text is greedy: equal, not nearly so
    greedy = plain.generate([ids[:start]], max_tokens=5, greedy=True, logit_bias={plain.tokenizer.eos_id: -100.0})[0].ids
    told = server.complete(prompt=[*ids[:start], *greedy], max_tokens=1, logprobs=1, echo=True,
                           logit_bias={str(plain.tokenizer.eos_id): 100})["choices"][0]["logprobs"]
    assert told["tokens"][-1] == plain.tokenizer.token(plain.tokenizer.eos_id)  # even an end token is there to be cut
    pairs = list(zip(told["token_logprobs"], told["top_logprobs"]))[start:-1]
    assert len(pairs) == 5 and all(value == max(place.values()) for value, place in pairs)


def test_a_prompt_that_fills_the_context_is_scored_and_a_longer_one_is_refused(server, theirs):
    context = theirs.config.max_position_embeddings
    ids = [(5 * i) % 300 for i in range(context)]
    told = server.complete(prompt=ids, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    assert told["token_logprobs"][1:] == pytest.approx(scores(theirs, ids), abs=1e-3)  # 512 positions of sharp attention
    answer = server.post("/v1/completions", prompt=[*ids, 1], echo=True, logprobs=0, max_tokens=0)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt"
    answer = server.post("/v1/completions", prompt=ids, echo=True, logprobs=0)
    assert answer.status_code == 400 and "before an answer" in answer.json()["error"]["message"]
    server.idle()


def test_a_special_token_takes_no_place_in_the_text(server, plain):
    specials = [i for i in plain.tokenizer.special_tokens.values() if i != plain.tokenizer.eos_id] or [plain.tokenizer.eos_id]
    (x,), (y,) = plain.tokenizer.encode("x"), plain.tokenizer.encode("y")
    choice = server.complete(prompt=[x, specials[0], y], echo=True, max_tokens=0, logprobs=0)["choices"][0]
    assert choice["text"] == "xy" and choice["logprobs"]["text_offset"] == [0, 1, 1]
