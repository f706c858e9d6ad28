"""Many at once, some of them rude: all get an answer or are told to come again, and nothing is left over."""

import asyncio
import random

import httpx
import pytest

COMPLETE = "/v1/completions"


async def rude(client: httpx.AsyncClient, rng: random.Random) -> int:
    """One request of some kind; returns its status, 0 where it was broken off."""
    body = {"model": "m", "prompt": rng.choice(["import os", "x", "class A:\n" * 8, "def f(x):\n    return"]),
            "max_tokens": rng.randint(1, 60), "n": rng.randint(1, 3), "stream": rng.random() < 0.5}
    kind = rng.randrange(6)
    if kind == 0:
        body |= rng.choice([{"temperature": -1}, {"foo": 1}, {"max_tokens": 10**6}, {"prompt": "x" * 5000}, {"n": 0},
                            {"logit_bias": {"9999999": 1}}, {"response_format": {"type": "grammar"}}])
    if kind == 1:
        body["bad_words"] = ["e", "import"]
    if kind in (2, 3):  # gone after a while, before or in the middle of the answer
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + rng.random() * 0.2) if hasattr(
                    asyncio, "timeout_at") else _Never(), client.stream("POST", COMPLETE, json=body) as answer:
                async for _ in answer.aiter_bytes():
                    if rng.random() < 0.3:
                        return 0
                return answer.status_code
        except (asyncio.TimeoutError, httpx.HTTPError):
            return 0
    answer = await client.post(COMPLETE, json=body)
    if answer.status_code == 200 and not body["stream"]:
        assert len(answer.json()["choices"]) == body["n"]
    return answer.status_code


class _Never:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *_):
        pass


def storm(server, n: int, at_once: int, seed: int = 1) -> list[int]:
    async def all_of_them() -> list[int]:
        gate, rng = asyncio.Semaphore(at_once), random.Random(seed)
        limits = httpx.Limits(max_connections=at_once)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            async def one(i: int) -> int:
                async with gate:
                    return await rude(client, random.Random(rng.random()))

            return await asyncio.gather(*(one(i) for i in range(n)))

    return asyncio.run(all_of_them())


def check_storm(server, n: int) -> None:
    before = server.idle()
    statuses = storm(server, n, 40)
    assert set(statuses) <= {0, 200, 400, 429} and statuses.count(200) > n // 4 and statuses.count(400) > n // 50
    after = server.idle()
    assert after["vllm:kv_cache_usage_perc"] == 0 and after["llmwright:kv_blocks_lost"] == 0
    assert after["vllm:generation_tokens_total"] > before["vllm:generation_tokens_total"]
    assert server.complete(prompt="import os", max_tokens=3)["usage"]["completion_tokens"] == 3


def test_hundreds_of_requests_some_broken_off_leave_nothing_behind(server):
    check_storm(server, 200)


@pytest.mark.slow
def test_two_thousand_requests_some_broken_off_leave_nothing_behind(server):
    check_storm(server, 2000)


def test_two_hundred_clients_at_once_are_answered_or_told_to_come_again(server):
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=httpx.Limits(max_connections=200)) as client:
            return await asyncio.gather(*(
                client.post(COMPLETE, json={"model": "m", "prompt": f"import {i}", "max_tokens": 8, "ignore_eos": True})
                for i in range(200)))

    answers = asyncio.run(ask())
    assert {a.status_code for a in answers} <= {200, 429}
    done = [a.json() for a in answers if a.status_code == 200]
    assert len(done) >= 64 and all(d["usage"]["completion_tokens"] == 8 for d in done)
    assert all(a.headers["retry-after"] for a in answers if a.status_code == 429)
    server.idle()


def test_a_client_that_goes_away_frees_its_place_at_once(server):
    before = server.idle()
    with server.client.stream("POST", COMPLETE, json={"model": "m", "prompt": "x", "max_tokens": 500, "ignore_eos": True,
                                                      "stream": True}) as answer:
        next(answer.iter_lines())
    after = server.idle(5)
    written = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
    assert written < 400
    name = "vllm:request_success_total{finished_reason=abort}"
    assert after[name] == before[name] + 1
    reason = "llmwright:requests_failed_total{reason=disconnected}"
    assert after[reason] == before.get(reason, 0) + 1


def test_a_client_that_goes_away_before_its_whole_answer_frees_its_place(server):
    before = server.idle()
    with pytest.raises(httpx.ReadTimeout):
        server.client.post(COMPLETE, json={"model": "m", "prompt": "x", "max_tokens": 500, "ignore_eos": True}, timeout=0.1)
    after = server.idle(5)
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] < 400
