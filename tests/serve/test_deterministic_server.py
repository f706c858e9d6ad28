"""`serve --deterministic`: whoever else is served, the answer to a request is the one that generation alone gives."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from server_case import Server

from llmwright.engine.language_model import load
from llmwright.kernels import native

PROMPTS = ["import os", "def main():\n    return", "class Größe:", "x"]


@pytest.mark.skipif(native.library() is None, reason="no native kernels here")
def test_an_answer_does_not_depend_on_the_others(small_model):
    alone = load(small_model, deterministic=True)
    wanted = {p: alone.generate(p, max_tokens=40, greedy=True) for p in PROMPTS}
    server = Server(small_model, "--deterministic", "--step-tokens", "9", "--block", "4")
    try:
        assert server.client.get("/v1/models").json()["data"][0]["deterministic"] is True

        def ask(i: int) -> tuple:
            prompt = PROMPTS[i % len(PROMPTS)]
            choice = server.complete(prompt=prompt, max_tokens=40, temperature=0, logprobs=0)["choices"][0]
            return prompt, choice["text"], choice["logprobs"]["token_logprobs"]

        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(ask, range(24)))
        for prompt, text, log_probs in found:
            assert text == wanted[prompt].text
            assert log_probs == wanted[prompt].log_probs[: len(log_probs)]
    finally:
        server.close()
