"""A server's beginning and end: loading, an address that is taken, a signal under load, an engine that is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from server_case import Server, save_model

from llmwright.cli import run

COMPLETE = "/v1/completions"


def in_background(server: Server, n: int, **body) -> tuple[list, list]:
    """n streams at once: their threads, and for each (status, text) once it is over."""
    found: list = []

    def ask(i: int) -> None:
        try:
            with httpx.Client(base_url=server.url, timeout=60) as client, client.stream(
                    "POST", COMPLETE, json={"model": "m", "prompt": f"import {i}", "stream": True, **body}) as answer:
                found.append((answer.status_code, answer.read().decode()))
        except httpx.HTTPError as error:
            found.append((0, repr(error)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    return threads, found


def until(condition, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def busy(server: Server, n: int) -> bool:
    return server.metrics()["vllm:num_requests_running"] >= n


def test_before_the_model_is_there_the_server_says_so_and_a_signal_lets_what_runs_finish(small_model):
    import psutil

    server = Server(small_model, ready=False)
    try:
        def listening() -> list:
            return [c for c in psutil.Process(server.process.pid).net_connections("tcp") if c.status == "LISTEN"]

        until(lambda: bool(listening()), 30)
        server.client = httpx.Client(base_url=(url := f"http://127.0.0.1:{listening()[0].laddr.port}"), timeout=60)
        server.url = url
        early = server.client.get("/ready")
        assert early.status_code == 503 and early.json() == {"status": "loading"}
        assert server.client.get("/health").json() == {"status": "loading"} and server.metrics()["llmwright:ready"] == 0
        answer = server.post(COMPLETE, prompt="x")
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading" and answer.headers["retry-after"]
        until(lambda: server.client.get("/ready").status_code == 200, 30)
        until(lambda: server.said)
        assert server.said[0].strip().endswith(url.replace("127.0.0.1", "localhost"))
        # the completion that came too soon, and none of the probes
        assert 'requests_failed_total{model_name="m",reason="unavailable"} 1.0' in server.client.get("/metrics").text
        threads, found = in_background(server, 8, max_tokens=450, ignore_eos=True)
        until(lambda: busy(server, 8))
        server.signal(signal.SIGTERM)
        until(lambda: server.client.get("/ready").status_code == 503)
        assert server.client.get("/health").status_code == 200
        refused = server.post(COMPLETE, prompt="x")
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        for thread in threads:
            thread.join(60)
        assert [status for status, _ in found] == [200] * 8 and all(t.endswith("data: [DONE]\n\n") for _, t in found)
        assert all(t.count('"text":') > 200 for _, t in found)  # some tokens are no whole character
        assert server.wait() == 0
    finally:
        server.close()


def test_what_does_not_finish_in_time_is_told_so(small_model):
    server = Server(small_model, "--drain-seconds", "0.05")
    try:
        threads, found = in_background(server, 8, max_tokens=450, ignore_eos=True)
        until(lambda: busy(server, 8))
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        for thread in threads:
            thread.join(10)
        assert all("being stopped" in text and "[DONE]" not in text for _, text in found) and len(found) == 8
    finally:
        server.close()


def test_a_killed_engine_is_noticed_and_nobody_waits_for_it(small_model):
    server = Server(small_model)
    try:
        threads, found = in_background(server, 4, max_tokens=450, ignore_eos=True)
        until(lambda: busy(server, 4))
        os.kill(server.engine(), signal.SIGKILL)
        for thread in threads:
            thread.join(10)
        assert len(found) == 4 and all("killed by signal 9" in text for _, text in found), found
        health = server.client.get("/health")
        assert health.status_code == 503 and "killed by signal 9" in health.text
        assert server.client.get("/ready").status_code == 503
        for stream in (True, False):
            answer = server.post(COMPLETE, prompt="x", stream=stream)
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "engine_dead"
        metrics = server.metrics()
        assert metrics["vllm:num_requests_running"] == metrics["vllm:num_requests_waiting"] == 0
        assert metrics["llmwright:requests_failed_total{reason=engine}"] == 6 and metrics["llmwright:ready"] == 0
        assert [line for line in server.log() if line["event"] == "engine_died"]
        server.signal()
        assert server.wait() == 0
    finally:
        server.close()


@pytest.mark.slow
def test_a_killed_server_leaves_no_engine_behind(small_model):
    import psutil

    server = Server(small_model)
    engine = psutil.Process(server.engine())
    server.close()
    assert engine.wait(10) is not False


def test_an_address_that_is_taken_is_one_line(small_model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["serve", str(small_model), "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"port {port} of 127.0.0.1 cannot be taken" in err and len(err.splitlines()) == 1
    assert run(["serve", str(small_model), "--host", "no.such.host.invalid", "--port", "0"]) == 2
    assert "is no address of this machine" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path):
    path = save_model(tmp_path / "m")
    (path / "model.safetensors").write_text("{")
    found = subprocess.run([sys.executable, "-m", "llmwright", "serve", str(path), "--port", "0"], capture_output=True,
                           text=True, timeout=60)
    assert found.returncode in (1, 2) and found.stdout == ""
    assert "model.safetensors" in found.stderr and len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("options, said", [
    (["--api-key", "two words"], "an API key"), (["--api-key-file", "nowhere"], "nowhere: cannot be read"),
    (["--api-key-file", "/dev/null"], "holds no API key"), (["--queue", "-1"], "--queue"),
])
def test_a_wrong_option_is_one_line(small_model, capsys, options, said):
    assert run(["serve", str(small_model), "--port", "0", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err
