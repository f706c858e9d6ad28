"""The engine's process: what fails in it is told, and it goes on."""

import multiprocessing
import threading

import pytest

from llmwright.engine.language_model import load
from llmwright.serve.settings import EngineSettings
from llmwright.serve.worker import Counts, Ended, Job, Started, Text, Texts


@pytest.fixture
def worker(small_model):
    here, there = multiprocessing.Pipe()
    made = Texts(there, load(small_model), EngineSettings(str(small_model), memory=1 << 20))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield made, here
    here.send(("stop", None))
    thread.join(10)
    assert not thread.is_alive()


def events_until(pipe, n: int) -> tuple[list, Counts]:
    """All events until n jobs have ended, and how the engine stands then."""
    found = []
    while sum(isinstance(e, Ended) for e in found) < n:
        assert pipe.poll(20), "nothing comes"
        _, events, counts = pipe.recv()
        found += [Text(*event) if type(event) is tuple else event for event in events]
    return found, counts


def job(number: int, **changed) -> Job:
    return Job(**{**dict(number=number, ids=[5, 6, 7], max_tokens=4, sampling={"seed": 1, "min_tokens": 4}), **changed})


def test_a_defect_in_a_step_fails_those_who_run_and_no_one_after_them(worker, monkeypatch):
    made, pipe = worker
    step = made.engine.step
    monkeypatch.setattr(made.engine, "step", lambda: (_ for _ in ()).throw(RuntimeError("the sky fell")) if made.busy else False)
    pipe.send(("submit", job(1)))
    pipe.send(("submit", job(2)))
    found, counts = events_until(pipe, 2)
    assert {(e.number, e.status, e.message) for e in found if isinstance(e, Ended)} == {
        (1, 500, "RuntimeError: the sky fell"), (2, 500, "RuntimeError: the sky fell")}
    monkeypatch.setattr(made.engine, "step", step)
    pipe.send(("submit", job(3)))
    found, counts = events_until(pipe, 1)
    assert found[-1] == Ended(3) and counts.running == counts.lost == counts.blocks_used == 0
    made.engine.blocks.check([])


def test_a_job_is_told_from_its_start_to_its_end(worker):
    _, pipe = worker
    pipe.send(("submit", job(1, n=2, log_probs=True, top=2)))
    found, counts = events_until(pipe, 1)
    assert isinstance(found[0], Started) and found[-1] == Ended(1)
    for i in (0, 1):
        texts = [e for e in found if isinstance(e, Text) and e.i == i]
        assert sum(len(t.ids) for t in texts) == 4 == sum(len(t.log_probs) for t in texts) == sum(len(t.top) for t in texts)
        assert [t.finish for t in texts][-1] == "length" and not any(t.finish for t in texts[:-1])
    assert counts.waiting == counts.running == 0


@pytest.mark.parametrize("changed, status", [
    (dict(max_tokens=0), 400), (dict(ids=[10**6]), 400), (dict(sampling={"temperature": -1}), 400), (dict(n=1000), 400),
    (dict(sampling={"nonsense": 1}), 500), (dict(ids=["x"]), 400), (dict(grammar="nonsense"), 400),
])
def test_a_job_that_cannot_be_done_is_told_so_and_the_others_go_on(worker, changed, status):
    _, pipe = worker
    pipe.send(("submit", job(1, max_tokens=30)))
    pipe.send(("submit", job(2, **changed)))
    found, _ = events_until(pipe, 2)
    ends = {e.number: e for e in found if isinstance(e, Ended)}
    assert ends[1].status == 200 and ends[2].status == status and ends[2].message


def test_a_cancelled_job_is_gone_with_the_next_step(worker):
    made, pipe = worker
    pipe.send(("submit", job(1, max_tokens=400, sampling={"min_tokens": 400})))
    assert pipe.recv()[2].running == 1
    pipe.send(("cancel", 1))
    while pipe.recv()[2].running:
        pass
    pipe.send(("submit", job(2)))
    found, counts = events_until(pipe, 1)
    assert found[-1] == Ended(2) and counts.blocks_used == 0 and not made.open
