"""`llmwright bench serve`: its client says when what came, its figures are what they are called, and its server ends
with it."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from hand_server import DONE, START, HandServer, chunk, event, usage, whole
from hypothesis import given, strategies as st

from llmwright.cli import run as command
from llmwright.errors import RequestError, WorkError
from llmwright.serve.bench import Asker, Case, arrivals, decode_rate, measure, percentile, prefix, schedule, summary
from llmwright.serve.bench_table import table
from llmwright.serve.load import Answer, Run, Target, run

END = b"0\r\n\r\n"
SLACK = 0.6  # seconds that a busy machine may be late
SMALL = Case(streams=(1, 3), prompt=40, answer=6, rounds=2, long=64, arrivals=4, rate=40.0)


def ask(server, *dues: float) -> Run:
    return run(Target.of(server.url), [(due, {"model": "m", "prompt": "x", "stream": True}) for due in dues])


# --- the client ---


def test_each_piece_has_the_time_when_it_came_and_tokens_are_counted_as_the_server_says():
    def answer(body):
        yield from (0.1, START, 0.1, chunk(event("a")), 0.2, chunk(event("b") + event("c")), 0.1,
                    chunk(event(None, **usage(7, 5)) + DONE) + END)

    with HandServer(answer) as server:
        got = ask(server, 0.0)
    (a,) = got.answers
    assert (a.error, a.status, a.tokens, a.prompt_tokens) == (None, 200, 7, 5)
    assert len(a.times) == 3
    for found, wanted in zip([a.first, *a.gaps, a.latency, got.seconds], [0.2, 0.2, 0.0, 0.5, 0.5]):
        assert wanted - 0.005 <= found < wanted + SLACK
    assert a.rate == pytest.approx(6 / (a.times[-1] - a.times[0]))


@pytest.mark.parametrize("cut", [1, 2, 7, 40])
def test_how_the_bytes_are_cut_does_not_matter(cut):
    stream = START + chunk(event("0\r\n\r\n", end=b"\r\n\r\n") + event("ü")[:9]) + chunk(event("ü")[9:]) + chunk(
        b": a comment\n\n" + event("", **usage(2)) + DONE) + END

    def answer(body):
        for i in range(0, len(stream), cut):
            yield stream[i : i + cut]
            if cut > 2:
                yield 0.001

    with HandServer(answer) as server:
        (a,) = ask(server, 0.0).answers
    assert (a.error, a.tokens, len(a.times)) == (None, 2, 2) and a.times == sorted(a.times)


def test_a_body_that_ends_with_its_connection_and_has_no_usage_is_counted_by_pieces():
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    with HandServer(lambda body: [head + event("a") + event("b"), 0.01, event("c") + DONE]) as server:
        (a,) = ask(server, 0.0).answers
    assert (a.error, a.tokens, len(a.times)) == (None, 3, 3)


@pytest.mark.parametrize("sent, said", [
    ([whole(429, {"error": {"message": "the queue\n is full"}})], "429: the queue is full"),
    ([whole(400, {"detail": "no"})], "400: no"),
    ([b"HTTP/1.1 502 Bad\r\n\r\n<html>\n nginx"], "502: <html> nginx"),
    ([START + chunk(event("a")) + chunk(b'data: {"error": {"message": "out of memory"}}\n\n') + END], "out of memory"),
    ([START + chunk(event("a"))], "the answer broke off"),
    ([START + chunk(b"data: {\n\n" + DONE) + END], "an event of the stream is no JSON"),
    ([START + chunk(DONE) + END], "the answer has no text"),
    ([START + chunk(b"data: [1]\n\n") + END], "an event of the stream is not one of OpenAI's API"),
    ([START + chunk(b'data: {"choices": ["a"]}\n\n') + END], "an event of the stream is not one of OpenAI's API"),
    ([START + chunk(event("a") + event(**usage(-3)) + DONE) + END], "an event of the stream is not one of OpenAI's API"),
    ([START + chunk(b"data: " + b"[" * 100_000 + b"\n\n") + END], "an event of the stream is not one of OpenAI's API"),
    ([START + b"      -8\r\n" + event("a") + END], "the answer broke off"),
    ([], "the server closed the connection without an answer"),
    ([b"SSH-2.0\r\n"], "the server closed the connection without an answer"),
])
def test_a_failure_is_told_and_the_others_go_on(sent, said):
    turns = iter([sent, [START + chunk(event("a") + DONE) + END]])
    with HandServer(lambda body: next(turns)) as server:
        bad, good = ask(server, 0.0, 0.15).answers
    assert (bad.error, good.error) == (said, None)


def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr("llmwright.serve.load.SILENCE", 0.2)
    with HandServer(lambda body: [START, 2.0]) as server:
        begin = time.monotonic()
        (a,) = ask(server, 0.0).answers
    assert a.error == "nothing came for 0 seconds" and time.monotonic() - begin < 1.5


def test_a_server_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr("llmwright.serve.load.LONGEST", 0.5)
    with HandServer(lambda body: [START, *[part for _ in range(40) for part in (chunk(event("a")), 0.05)]]) as server:
        begin = time.monotonic()
        (a,) = ask(server, 0.0).answers
    assert a.error == "no end of it after 0 seconds" and time.monotonic() - begin < 1.5


def test_requests_are_sent_when_they_are_due_whether_others_are_answered_or_not():
    with HandServer(lambda body: [0.5, START + chunk(event("a") + DONE) + END]) as server:
        got = ask(server, 0.0, 0.1, 0.25)
        came = [at for at, _ in server.asked]
    for at, due in zip(came, (0.0, 0.1, 0.25)):
        assert abs(at - came[0] - due) < 0.25  # long before the first is answered
    assert [a.due for a in got.answers] == [pytest.approx(0.0, abs=SLACK), 0.1, 0.25]
    assert all(0.495 < a.first < 0.5 + SLACK for a in got.answers) and got.seconds < 0.75 + SLACK


def test_https_is_spoken_to_whom_the_system_trusts(tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, for a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    pieces = [chunk(event("x" * 30_000) * 3) for _ in range(20)]
    big = [START, *pieces, 0.05, chunk(event(None, **usage(60)) + DONE) + END]
    with HandServer(lambda body: big, context) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(WorkError, match="certificate"):
            run(Target.of(url), [(0.0, {})])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Asker(Target.of(url)).model == "m"
        (a,) = run(Target.of(url), [(0.0, {"prompt": "x"})]).answers
    assert (a.error, len(a.times), a.tokens) == (None, 60, 60)


@pytest.mark.parametrize("url, host, port, path", [
    ("http://localhost:8000", "localhost", 8000, ""), ("http://[::1]:80/v1/", "::1", 80, ""),
    ("https://api.example.org/openai/v1", "api.example.org", 443, "/openai"),
])
def test_an_address_may_end_in_v1(url, host, port, path):
    target = Target.of(url)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://[::1", ""])
def test_what_is_no_address_is_said(url):
    with pytest.raises(RequestError, match="no address of a server"):
        Target.of(url)


# --- the figures, by hand ---


def test_the_rate_of_writing_counts_what_came_while_all_wrote():
    early = Answer(0.0, times=[1.0, 2.0, 3.0, 4.0], end=4.0, tokens=8)  # two tokens a piece
    late = Answer(0.0, times=[2.5, 3.5, 4.5, 5.5], end=5.5, tokens=4)
    assert decode_rate([Run([early, late], 5.5, 0.0)]) == pytest.approx((2 * 2 + 1) / 1.5)  # 2.5 to 4
    one = Answer(0.0, times=[1.0, 1.5, 2.0], end=2.0, tokens=3)
    assert decode_rate([Run([one], 2.0, 0.0)]) == pytest.approx(one.rate) == 2.0
    assert decode_rate([Run([Answer(0.0, times=[1.0], end=1.0, tokens=1)], 1.0, 0.0)]) is None


def test_figures_of_a_case_worked_by_hand():
    runs = [Run([Answer(0.0, times=[0.5, 1.0, 2.0], end=2.0, tokens=3, prompt_tokens=10),
                 Answer(1.0, times=[1.2, 1.4], end=1.5, tokens=2, prompt_tokens=20)], 2.0, 0.1),
            Run([Answer(0.0, error="429: full", end=0.1)], 0.5, 0.1)]
    found = summary(runs)
    assert (found["requests"], found["failed"], found["error"]) == (3, 1, "429: full")
    assert (found["tokens"], found["prompt_tokens"], found["tokens_per_second"]) == (5, 30, 5 / 2.5)
    assert found["first_token"] == pytest.approx({"p50": 0.35, "p95": 0.2 + 0.95 * 0.3})
    assert found["between_tokens"] == pytest.approx({"p50": 0.5, "p95": 0.95})  # 0.2, 0.5, 1.0
    assert found["latency"] == pytest.approx({"p50": 1.25, "p95": 0.5 + 0.95 * 1.5})
    assert found["tokens_per_second_each"] == pytest.approx((2 / 1.5 + 1 / 0.2) / 2)
    assert found["client"] == pytest.approx(0.2 / 2.5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_are_numpys(values, q):
    assert percentile(values, q) == pytest.approx(np.percentile(values, q), abs=1e-6)


# --- a real server ---


def test_the_servers_own_counters_agree(server):
    before = server.idle()
    seen = []
    found = measure(Asker(Target.of(server.url)), SMALL, lambda: seen.append(1))
    after = server.idle()

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert len(seen) == SMALL.requests and found["fixed_lengths"] and found["model"] == "m"
    names = ("streams", "requests", "failed", "tokens", "prompt_tokens")
    assert [tuple(row[name] for name in names) for row in found["streams"]] == [(1, 2, 0, 12, 80), (3, 6, 0, 36, 240)]
    written = 8 + 48 + 2 + 4 + found["arrivals"]["tokens"]  # the first, which is not counted, rows, prefill, prefix
    assert more("vllm:generation_tokens_total") == written
    assert more("vllm:prompt_tokens_total") == 16 + 320 + 2 * 64 + 4 * 80 + found["arrivals"]["prompt_tokens"]
    assert more("vllm:prefix_cache_hits_total") == 2 * 64 == 2 * found["prefix"]["cached_tokens"]
    assert all(row["tokens_per_second"] > 0 and row["first_token"]["p50"] <= row["first_token"]["p95"]
               for row in (*found["streams"], found["arrivals"]))
    shown = table({**found})
    assert max(map(len, shown.split("\n\n")[1].splitlines())) <= 80 and "times sooner" in shown


def test_one_seed_asks_the_same_of_every_server():
    with HandServer(lambda body: [START + chunk(event("a") + DONE) + END]) as server:
        for seed in (5, 5, 6):
            asker = Asker(Target.of(server.url), seed=seed)
            arrivals(asker, Case(arrivals=5, rate=200, seed=seed))
        bodies = [json.dumps(body) for _, body in sorted(server.asked, key=lambda each: each[0])]
    first, second, third = bodies[:6], bodies[6:12], bodies[12:]
    assert sorted(first) == sorted(second) and sorted(first) != sorted(third) and len(set(bodies)) > 10


def test_random_arrivals_come_at_the_asked_rate():
    made = schedule(Case(arrivals=2000, rate=4.0))
    gaps = np.diff([at for at, _, _ in made])
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.1) and gaps.std() == pytest.approx(1 / 4, rel=0.1)  # exponential
    assert {32, 512} <= {prompt for _, prompt, _ in made} and {16, 256} <= {answer for _, _, answer in made}
    assert max(prompt + answer for _, prompt, answer in schedule(Case(), 64)) <= 48


def test_the_second_of_a_shared_prefix_is_sooner_where_the_server_keeps_it():
    seen = set()

    def answer(body):
        begin = body["prompt"].split()[0]
        known, _ = begin in seen, seen.add(begin)
        return [0.02 if known else 0.6, START + chunk(event("a") + DONE) + END]

    with HandServer(answer) as server:
        asker = Asker(Target.of(server.url), seed=3)
        found = prefix(asker, Case(long=20, rounds=1))
    assert 1.5 < found["times_sooner"] < 31


def test_a_server_that_knows_fewer_parameters_is_asked_without_them():
    def answer(body):
        if extra := {"ignore_eos", "stream_options"} & set(body):
            return [whole(400, {"error": {"message": f"unknown: {sorted(extra)}"}})]
        return [START + chunk(event("a") + event("b") + DONE) + END]

    with HandServer(answer) as server:
        asker = Asker(Target.of(server.url))
        found = measure(asker, Case((2,), rounds=1, long=0, arrivals=0))
    assert not found["fixed_lengths"] and found["streams"][0]["tokens"] == 4
    assert "answers may be shorter" in table(found)


def test_failures_of_some_are_counted_and_of_all_an_error():
    turns = iter(["good", "good", "bad", "bad", "bad"])

    def answer(body):
        if next(turns) == "bad":
            return [whole(429, {"error": {"message": "full"}})]
        return [START + chunk(event("a") + event("b") + DONE) + END]

    with HandServer(answer) as server:
        asker = Asker(Target.of(server.url))
        found = measure(asker, Case((2,), rounds=1, long=0, arrivals=0))
        assert found["streams"][0]["failed"] == 1 and "first failure     429: full" in table(found)
        with pytest.raises(WorkError, match="all 2 requests failed: 429: full"):
            measure(asker, Case((2,), rounds=1, long=0, arrivals=0))


def test_a_request_that_has_to_be_answered_is_asked_again():
    turns = iter(["good", "bad", "good", "good", "bad", "good"])

    def answer(body):
        if next(turns) == "bad":
            return [whole(503, {"error": {"message": "busy"}})]
        return [START + chunk(event("a") + DONE) + END]

    with HandServer(answer) as server:
        found = measure(Asker(Target.of(server.url)), Case((), rounds=1, long=20, arrivals=0))
    assert found["prefill"]["failed"] == 1 and found["prefix"]["warm"] > 0 and "1 failed" in table(found)


@pytest.mark.parametrize("models", [{"data": 5}, {"data": [{"id": "m", "max_model_len": "4096"}]}, {"data": [{"id": 5}]}])
def test_what_a_server_says_of_its_models_may_be_anything(models, monkeypatch):
    monkeypatch.setattr("hand_server.MODELS", models)
    with HandServer(lambda body: [START + chunk(event("a") + DONE) + END]) as server:
        assert Asker(Target.of(server.url), "m").context is None


# --- the command ---

QUICK = ["--streams", "1,2", "--prompt-tokens", "20", "--answer-tokens", "4", "--rounds", "1", "--long-tokens", "40",
         "--arrivals", "2", "--rate", "20"]


def test_a_model_is_served_measured_and_its_server_ended(small_model, tmp_path, capsys):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    file = tmp_path / "found.json"
    options = ["--dtype", "float32", "--threads", "1"]
    assert command(["bench", "serve", str(small_model), *QUICK, *options, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert "streams  tokens/s" in out and found["server"][2:] == [str(small_model), *options]
    assert [row["tokens"] for row in found["streams"]] == [4, 8]
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_json_to_stdout_is_all_there_is(server, capsys):
    assert command(["bench", "serve", "--url", server.url + "/v1", *QUICK, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["arrivals"]["requests"] == 2


def test_ctrl_c_ends_the_server_it_started(small_model):
    process = subprocess.Popen(
        [sys.executable, "-m", "llmwright", "bench", "serve", str(small_model), "--threads", "1", "--dtype", "float32",
         "--rounds", "1000"], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    end, started = time.monotonic() + 60, []
    while len(started) < 2 and time.monotonic() < end:  # the server and its engine
        started = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and said.rstrip().endswith("stopped")
    _, alive = psutil.wait_procs(started, timeout=10)
    assert started and not alive


@pytest.mark.parametrize("arguments, said", [
    ([], "give a MODEL"),
    (["m", "--url", "http://localhost:1"], "not both"),
    (["no/such/model"], "no/such/model"),
    (["--url", "localhost"], "no address of a server"),
    (["--url", "http://localhost:1", "--threads", "2"], "--threads"),
    (["m", "--model", "x"], "--model x: it belongs to --url"),
    (["--url", "http://localhost:1", "--streams", "1,x"], "--streams '1,x'"),
    (["--url", "http://localhost:1", "--streams", "0"], "--streams '0'"),
    (["--url", "http://localhost:1", "--json", "/no/such/place/x.json"], "--json /no/such/place/x.json"),
])
def test_a_wrong_request_is_one_clear_line(arguments, said, capsys):
    assert command(["bench", "serve", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1


def test_a_server_that_is_not_there_is_said(capsys):
    assert command(["bench", "serve", "--url", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1 cannot be reached (Connection refused)" in capsys.readouterr().err


def test_what_the_server_refuses_is_told(server, capsys):
    assert command(["bench", "serve", "--url", server.url, "--model", "other"]) == 2
    assert "404: model 'other' does not exist here" in capsys.readouterr().err
    assert command(["bench", "serve", "--url", server.url, "--answer-tokens", "500"]) == 2
    assert "a context of 512 tokens, and this takes 628" in capsys.readouterr().err


def test_a_server_that_does_not_start_says_why(small_model, capsys):
    assert command(["bench", "serve", str(small_model), "--dtype", "float12"]) == 2
    assert "float12" in capsys.readouterr().err
