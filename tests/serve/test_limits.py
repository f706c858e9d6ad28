"""What a client may ask of the server, and what it is told beyond that."""

import socket
import threading
import time

import httpx
import pytest
from server_case import Server

COMPLETE = "/v1/completions"
BLOCK = 2 * 2 * 16 * 2 * 16 * 4  # bytes: keys and values, 2 layers, 16 positions, 2 heads of 16 float32
LONG = dict(prompt="x", max_tokens=300, ignore_eos=True)


@pytest.fixture(scope="module")
def strict(small_model, tmp_path_factory):
    """Keys, and little room."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("# two of them\nfirst-key\nsecond-key\n")
    made = Server(
        small_model, "--api-key-file", str(file), "--max-texts", "2", "--queue", "2", "--streams-per-key", "3", "--max-body",
        "20000", "--max-prompt", "100", "--body-seconds", "1", "--request-seconds", "2", "--cors", "https://page.example",
        "--cache-memory", str(20 * BLOCK), "--log-prompts",
    )
    made.client.headers["authorization"] = "Bearer first-key"
    yield made
    made.close()
    assert not [line for line in made.log() if line["event"] == "defect"]


def test_only_who_has_a_key_may_ask(strict):
    for value, said in (("", "is needed"), ("Bearer wrong", "not known"), ("Basic first-key", "is needed"),
                        ("Bearer first-key2", "not known"), ("Bearer f\u00fcrst", "not known")):
        answer = strict.client.get("/v1/models", headers={"authorization": value.encode("latin-1")})
        assert answer.status_code == 401 and said in answer.json()["error"]["message"], value
        assert answer.json()["error"]["code"] == "invalid_api_key"
    for key in ("first-key", "second-key"):
        assert strict.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    for path in ("/health", "/ready", "/metrics", "/", "/docs", "/openapi.json"):
        assert strict.client.get(path, headers={"authorization": ""}).status_code == 200, path
    for path in ("/tokenize", "/detokenize", "/v1/chat/completions", "/v1/embeddings", "/v1/nowhere"):
        assert strict.client.post(path, json={}, headers={"authorization": ""}).status_code == 401, path


def test_a_body_may_not_be_larger_than_allowed_nor_come_too_slowly(strict):
    large = {"model": "m", "prompt": "x" * 30_000}
    assert strict.client.post(COMPLETE, json=large).status_code == 413
    answer = strict.client.post(COMPLETE, content=iter([b'{"a": "', *[b"x" * 5000] * 10]),
                                headers={"content-type": "application/json"})  # its length is not told before
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
    host, port = strict.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-key\r\n"
                     b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        slow.settimeout(10)
        assert b" 408 " in slow.recv(1000)


def test_a_prompt_may_not_be_longer_than_allowed_nor_than_the_cache(strict):
    answer = strict.post(COMPLETE, prompt="word " * 200)
    assert answer.status_code == 400 and "100" in answer.text and answer.json()["error"]["code"] == "context_length_exceeded"
    with strict.client.stream("POST", COMPLETE, json={"model": "m", **LONG, "stream": True}) as other:
        lines = other.iter_lines()
        next(lines)
        answer = strict.post(COMPLETE, prompt="x", max_tokens=400)  # the context has room for it, the cache of 320 has not
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "max_tokens", answer.text
        assert sum(1 for line in lines if line) > 10  # the other goes on


def test_an_answer_that_takes_too_long_is_given_up(small_model, strict):
    with strict.client.stream("POST", COMPLETE, json={"model": "m", **LONG, "n": 2, "stream": True}) as answer:
        text = answer.read().decode()
    if "[DONE]" not in text:  # slower than the limit
        assert '"code": "timeout"' in text or '"code":"timeout"' in text
    strict.idle()


def test_a_full_queue_and_a_busy_key_are_told_to_come_again(strict):
    results = []

    def ask(key: str, n: int) -> None:
        with httpx.Client(base_url=strict.url, timeout=30, headers={"authorization": f"Bearer {key}"}) as client:
            results.append(client.post(COMPLETE, json={"model": "m", **LONG, "n": n}))

    def until(open_: int) -> None:
        end = time.monotonic() + 5
        while sum(strict.metrics()[f"vllm:num_requests_{s}"] for s in ("running", "waiting")) < open_:
            assert time.monotonic() < end
            time.sleep(0.005)

    threads = [threading.Thread(target=ask, args=("first-key", 1)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(3)
    busy = strict.post(COMPLETE, prompt="x", max_tokens=1)
    assert busy.status_code == 429 and busy.json()["error"]["code"] == "too_many_streams" and busy.headers["retry-after"]
    other = {"authorization": "Bearer second-key"}
    full = strict.client.post(COMPLETE, json={"model": "m", "prompt": "x", "max_tokens": 1, "n": 2}, headers=other)
    assert full.status_code == 429 and full.json()["error"]["code"] == "queue_full" and full.headers["retry-after"]
    assert strict.post(COMPLETE, prompt="x", n=5).status_code == 400  # never: more than there are places
    for thread in threads:
        thread.join()
    assert {r.status_code for r in results} <= {200, 504}
    strict.idle()
    metrics = strict.metrics()
    assert metrics["llmwright:requests_failed_total{reason=queue_full}"] == 1
    assert metrics["llmwright:requests_failed_total{reason=streams_per_key}"] == 1


def test_pages_of_other_origins_are_let_in_by_name(strict):
    asked = {"origin": "https://page.example", "access-control-request-method": "POST",
             "access-control-request-headers": "authorization,content-type"}
    answer = strict.client.request("OPTIONS", COMPLETE, headers=asked)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    for origin, allowed in (("https://page.example", True), ("https://evil.example", False)):
        answer = strict.client.get("/v1/models", headers={"origin": origin})
        assert ("access-control-allow-origin" in answer.headers) == allowed


def test_the_log_has_text_where_that_was_asked_for(strict):
    strict.post(COMPLETE, prompt="the question", max_tokens=2)
    strict.idle()
    line = [line for line in strict.log() if line.get("prompt") == "the question"][-1]
    assert isinstance(line["text"][0], str) and line["key"] == 0


def test_without_leave_no_other_origin_is_let_in(server):
    answer = server.client.get("/v1/models", headers={"origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert server.client.request("OPTIONS", COMPLETE, headers={"origin": "https://page.example"}).status_code == 405
