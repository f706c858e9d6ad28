"""The engine in a process of its own: requests come through a pipe, and after each step one message goes back.

So the server's event loop never waits for a step, and an engine that dies takes no connection with it. When there is
nothing to do the process sleeps on the pipe. A request that fails never ends it; the end of the pipe does.
"""

import multiprocessing
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import spin
from ..errors import Error, RequestError
from .pipe import Pipe
from .settings import EngineSettings


ADVISED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # that a model's makers give advice for


@dataclass(frozen=True)
class About:
    """What the server has to know of a loaded model. `room`: positions that the cache of keys and values holds."""

    kind: str
    tokenizer: object
    context: int
    longest: int  # tokens of a prompt, so that one more can follow
    stop_tokens: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    begins: bool = False  # whether a text gets the beginning-of-text token
    advice: dict = field(default_factory=dict)
    room: int = 0
    dtype: str = "float32"
    parameters: int = 0
    weights: str = "float"
    deterministic: bool = False
    chat_advice: dict = field(default_factory=dict)  # how a conversation is answered where a request does not say


@dataclass(frozen=True)
class Job:
    """One prompt and what is wanted of it. `sampling`: fields of `engine.sampler.Sampling`. `grammar`: what its texts
    must be, as llguidance reads it (`structured.py`). `prompt_log_probs`: its prompt is scored too (`LLM.submit`)."""

    number: int
    ids: list[int]
    max_tokens: int
    sampling: dict
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    log_probs: bool = False
    top: int = 0
    grammar: str | None = None
    prompt_log_probs: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """Its prompt is being read since `time`; `reused` of its tokens were in the prefix cache."""

    number: int
    time: float
    reused: int


class Text(NamedTuple):
    """What a step brought for text `i` of a job. `finish`: why it ended, if it did. There are thousands a second: through
    the pipe they go as plain tuples, which takes a third of the time."""

    number: int
    i: int
    piece: str
    ids: list[int]
    log_probs: list[float]
    top: list[list[tuple[int, float]]]
    finish: str | None
    prompt: list[tuple] | tuple = ()  # with what comes first, of a prompt that is scored: (id, log-probability, the likeliest ones)


@dataclass(frozen=True, slots=True)
class Ended:
    """All its texts are done, or it failed with a `message`: by its own fault (`status` 400) or not (500)."""

    number: int
    status: int = 200
    message: str = ""
    value: object = None  # of an embedding: the vectors, and how many tokens each text had


@dataclass(frozen=True, slots=True)
class Counts:
    """How the engine stands after a step that ended at `time` on the machine's monotonic clock."""

    time: float
    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks: int = 0
    preemptions: int = 0
    lost: int = 0  # blocks that are in no table, not free and not kept although nothing runs: none, or a defect


class Process(NamedTuple):
    """The worker's process, and this end of the pipe to it."""

    process: multiprocessing.Process
    end: socket.socket


def start(settings: EngineSettings) -> Process:
    here, there = socket.socketpair()
    spin.little()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=main, args=(there, settings), daemon=True, name="engine")
    process.start()
    there.close()  # so that its end is the pipe's end
    return Process(process, here)


def main(end: socket.socket, settings: EngineSettings) -> None:
    """The process. Ctrl-C on a terminal reaches it too: whoever started it decides when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = Pipe(end)
    try:
        worker = _load(connection, settings)
    except Exception as error:
        code = error.exit_code if isinstance(error, Error) else 1
        message = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        connection.send(("failed", message, code))
        return
    connection.send(("ready", worker.about))
    try:
        worker.run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the server is gone


def _load(connection: Pipe, settings: EngineSettings):
    import gc

    gc.disable()  # what is loaded stays
    import torch

    from ..engine.language_model import load
    from ..train.machine import pick_device

    if settings.threads:
        torch.set_num_threads(settings.threads)
    loaded = load(
        settings.model, dtype=settings.dtype, device=str(pick_device(settings.device)), weights=settings.weights,
        deterministic=settings.deterministic,
    )
    worker = (Vectors if loaded.kind == "encoder" else Texts)(connection, loaded, settings)
    gc.freeze()
    gc.enable()
    return worker


class Texts:
    """Jobs for a decoder."""

    def __init__(self, connection: Pipe, loaded, settings: EngineSettings):
        from ..engine.chat import usual
        from ..engine.llm import LLM
        from ..engine.prompt import begins, end_ids

        self.connection, self.open = connection, {}
        self.engine = LLM(
            loaded, memory=settings.memory, block=settings.block, max_texts=settings.max_texts,
            step_tokens=settings.step_tokens, prefix_cache=settings.prefix_cache,
        )
        blocks, config = self.engine.blocks, loaded.model.config
        self.about = About(
            loaded.kind, loaded.tokenizer, config.context, config.context - 1, loaded.stop_tokens,
            tuple(sorted(end_ids(loaded.model, loaded.tokenizer, loaded.stop_tokens))), begins(loaded.tokenizer),
            loaded.advice,
            len(blocks.blocks) * blocks.size, str(loaded.model.dtype).removeprefix("torch."),
            loaded.model.size, loaded.model.weights, loaded.model.steady,
            {name: getattr(usual(loaded), name) for name in ADVISED},
        )
        self.grammars = None
        self.engine.generate([list(self.about.ends[:1]) or [0]], max_tokens=2)  # what is built at first use is built now
        blocks.forget()

    def run(self) -> None:
        # half a second for a large vocabulary: not in the way of whoever asks first for an answer by a schema
        self.making = threading.Thread(target=self._make_grammars, daemon=True)
        self.making.start()
        while True:
            events = []
            wait = None if not self.busy else 0
            while self.connection.poll(wait):
                message = self.connection.recv()
                if message[0] == "stop":
                    return
                self.take(message, events)
                wait = 0
            self.step(events)
            self.connection.send(("step", events, self.counts()))

    @property
    def busy(self) -> bool:
        return bool(self.engine.scheduler.running or self.engine.scheduler.waiting)

    def take(self, message: tuple, events: list) -> None:
        what, value = message
        if what == "cancel":
            found = self.open.pop(value, None)
            if found:
                self.engine.cancel(found.request)
            return
        if what == "embed":
            events.append(Ended(value[0], 400, "this model is a decoder: it writes text and gives no embeddings"))
            return
        job: Job = value
        try:
            self.open[job.number] = self.submit(job)
        except Exception as error:
            events.append(_failure(job.number, error))

    def submit(self, job: Job) -> "_Open":
        from ..engine.sampler import Sampling

        made = _Open(job)
        make_mask = self._mask_maker(job.grammar) if job.grammar else None
        made.request = self.engine.submit(
            job.ids, max_tokens=job.max_tokens, sampling=Sampling(**job.sampling), n=job.n, stop=job.stop,
            stop_tokens=job.stop_tokens, log_probs=job.log_probs, top_log_probs=job.top, on_text=made.take,
            make_mask=make_mask, prompt_log_probs=job.prompt_log_probs,
        )
        made.first = made.request.sequences[0]
        return made

    def step(self, events: list) -> None:
        """One step of the engine, and what it brought."""
        begun = time.monotonic()
        try:
            self.engine.step()
        except Exception as error:  # of the machine or of a defect; those who are being written have lost their place
            for number, each in self.open.items():
                self.engine.cancel(each.request)
                events.append(_failure(number, error))
            self.open.clear()
            self.engine.blocks.forget()
            return
        ended = []
        for number, each in self.open.items():
            if each.report(begun, events):
                ended.append(number)
        for number in ended:
            del self.open[number]

    def counts(self) -> Counts:
        scheduler, blocks = self.engine.scheduler, self.engine.blocks
        used = len(blocks.blocks) - blocks.available
        return Counts(
            time.monotonic(), len({id(s.owner[0]) for s in scheduler.running}),
            len({id(s.owner[0]) for s in scheduler.waiting}), used, len(blocks.blocks),
            scheduler.preemptions, 0 if scheduler.running else used,
        )

    def _mask_maker(self, grammar: str):
        self.making.join()
        if self.grammars is None:
            raise RequestError(f"response_format: not with this model: {self.no_grammars}")
        return self.grammars.maker(grammar)

    def _make_grammars(self) -> None:
        try:
            from .structured import Grammars

            self.grammars = Grammars(self.about.tokenizer, self.about.ends)
        except Exception as error:  # llguidance is missing, or has no way with this tokenizer
            self.no_grammars = str(error) or type(error).__name__


class _Open:
    """A job that is not done: its request, and how much of each text the server knows."""

    def __init__(self, job: Job):
        self.number, self.request, self.first, self.started = job.number, None, None, False
        self.pieces, self.told = [""] * job.n, [0] * job.n
        self.prompt = len(job.ids)

    def take(self, i: int, piece: str) -> None:
        self.pieces[i] += piece

    def report(self, begun: float, events: list) -> bool:
        """Add what is new to `events`; returns whether the job is over."""
        if not self.started and (self.first.computed or self.request.done):
            self.started = True
            events.append(Started(self.number, begun, self.first.reused))
        over = True
        for i, row in enumerate(self.request.rows):
            at, result = self.told[i], row.result
            if len(result.ids) > at or (row.done and not result.ids):  # the latter where only the prompt was asked for
                self.told[i] = len(result.ids)
                scores = result.prompt_log_probs if at == 0 else None
                prompt = list(zip(row.start, scores, result.prompt_top_log_probs)) if scores else ()
                events.append((  # a Text
                    self.number, i, self.pieces[i], result.ids[at:], result.log_probs[at:] if result.log_probs else (),
                    result.top_log_probs[at:] if result.top_log_probs else (), result.finish_reason if row.done else None,
                    prompt,
                ))
                self.pieces[i] = ""
            over = over and row.done
        if not over and self.request.error is None:
            return False
        error = self.request.error
        events.append(_failure(self.number, error) if error else Ended(self.number))
        return True


class Vectors:
    """Jobs for an encoder."""

    def __init__(self, connection: Pipe, loaded, settings: EngineSettings):
        self.connection, self.loaded = connection, loaded
        config = loaded.model.config
        limit = (config.sentence and config.sentence.max_tokens) or config.context
        self.about = About(loaded.kind, loaded.tokenizer, limit, limit, dtype=str(loaded.model.dtype).split(".")[-1],
                           parameters=loaded.model.size)

    def run(self) -> None:
        cancelled = set()
        while True:
            messages = [self.connection.recv()]
            while self.connection.poll(0):
                messages.append(self.connection.recv())
            cancelled |= {value for what, value in messages if what == "cancel"}
            for what, value in messages:
                if what == "stop":
                    return
                if what == "embed" and value[0] not in cancelled:
                    self.connection.send(("step", [Started(value[0], time.monotonic(), 0)], Counts(time.monotonic(), 1)))
                    self.connection.send(("step", [self.answer(*value)], Counts(time.monotonic())))

    def answer(self, number: int, texts: list[str], limit: int | None) -> Ended:
        from ..engine.embed import embed, read

        try:
            found = read(self.loaded.model, self.loaded.tokenizer, texts)
            if found.cut:
                long = found.cut[0] + 1
                raise RequestError(f"text {long} is longer than the {found.limit} tokens that the model reads")
            vectors = embed(self.loaded.model, self.loaded.tokenizer, texts)
            return Ended(number, value=(vectors, [len(ids) for ids in found.ids]))
        except Exception as error:
            return _failure(number, error)


def _failure(number: int, error: Exception) -> Ended:
    if isinstance(error, RequestError):
        return Ended(number, 400, str(error))
    text = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
    return Ended(number, 500, text.splitlines()[0][:500] if text else "the engine failed")
