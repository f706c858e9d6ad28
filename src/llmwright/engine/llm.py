"""Many texts at once from one decoder: requests come and go, step by step.

`LLM.generate` is for a batch at hand; `submit`, `step` and `cancel` are for a server, whose requests come when they come.
"""

import itertools
import os
from collections.abc import Callable, Sequence as Many
from dataclasses import dataclass, field

import torch

from ..errors import Error, RequestError
from ..model.decoder import Decoder
from ..model.paged import PagedCache
from . import words
from .beam import Beams, Rules, Search, write
from .blocks import BlockManager
from .generate import generators
from .options import choose as choose_options
from .prompt import end_ids, prompt_ids
from .prompt_scores import PromptScores
from .row import Generation, Row, choose
from .runner import Runner
from .sampler import Sampling
from .scheduler import Plan, Scheduler
from .searching import Searching
from .sequence import Group, Sequence
from .text_stream import TextStream

RESERVE = 1 << 30  # bytes of the machine's memory that are left to others
SHARE = 0.5  # of the rest, for keys and values


@dataclass(eq=False)
class Request:
    """What was asked for: `rows`, one for each of its n texts, and while they are written, their `sequences`; of one
    that is `searching` these are its beams. `scores`: of its prompt, where they were asked for.

    `on_text(i, piece)` gets new text of text i as it comes, and `on_end(request)` is called once, when all its texts are
    done or it failed with `error`.
    """

    rows: list[Row]
    on_text: Callable[[int, str], None] | None = None
    on_end: Callable[["Request"], None] | None = None
    sequences: list[Sequence] = field(default_factory=list)
    error: Error | None = None
    searching: Searching | None = None
    scores: PromptScores | None = None

    @property
    def results(self) -> list[Generation]:
        return [row.result for row in self.rows]

    @property
    def done(self) -> bool:
        return self.error is not None or all(row.done for row in self.rows)


class LLM:
    """Texts from `loaded`, a decoder that `llmwright.load` gave.

    memory: bytes for keys and values; by default half of what is free beyond a reserve of 1 GiB, and no more than
    `max_texts` full contexts need. block: positions in a block. max_texts: written at a time. step_tokens: computed at a
    time, which bounds how long those who write wait for those who read. prefix_cache: whether what was read once is
    found again.
    """

    def __init__(
        self, loaded, *, memory: int | None = None, block: int = 16, max_texts: int = 64, step_tokens: int = 256,
        prefix_cache: bool = True,
    ):
        if not isinstance(loaded.model, Decoder):
            raise RequestError(f"{loaded.path}: this is an {loaded.kind}; the engine writes with a decoder")
        scaling = getattr(loaded.model.config.positions, "scaling", None)
        if scaling is not None and scaling.kind == "dynamic":
            raise RequestError(f"{loaded.path}: with dynamic rope scaling every angle changes as a text grows, so nothing that "
                               "was computed can be kept; the engine does not serve it (llmwright generate does)")
        self.loaded, self.model, self.tokenizer = loaded, loaded.model, loaded.tokenizer
        config, dtype = self.model.config, self.model.dtype
        each = PagedCache.block_bytes(config, block, dtype)
        most = max_texts * -(-config.context // block)
        n_blocks = min(most, (free_memory(self.model.device) if memory is None else memory) // each)
        if n_blocks < 1:
            raise RequestError(f"there is no memory for a block of keys and values, which takes {each:,} bytes")
        self.blocks = BlockManager(n_blocks, block, prefix_cache=prefix_cache)
        self.scheduler = Scheduler(self.blocks, max_texts=max_texts, step_tokens=step_tokens)
        self.runner = Runner(self.model, n_blocks, block)
        self.numbers = itertools.count()

    def generate(
        self, prompts: str | Many[str | list[int]], *, max_tokens: int = 128, n: int = 1, stop: str | Many[str] = (),
        stop_tokens: Many[int | str] = (), top_log_probs: int = 0, prompt_log_probs: int | None = None,
        on_text: Callable[[int, str], None] | None = None, **options,
    ) -> list[Generation]:
        """Continue each prompt; as `LanguageModel.generate`, without windows. `n` results a prompt, side by side.
        `prompt_log_probs` as in `submit`."""
        sampling, beams = choose_options(options, Sampling(), n)
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [prompt_ids(self.model, self.tokenizer, prompt, bounded=max_tokens > 0) for prompt in prompts]
        streams = generators([row for row in ids for _ in range(n)], sampling)
        requests = []
        try:
            for i, prompt in enumerate(prompts):
                tell = on_text and (lambda j, piece, first=n * i: on_text(first + j, piece))
                requests.append(self.submit(
                    prompt, max_tokens=max_tokens, sampling=sampling, n=n, stop=stop, stop_tokens=stop_tokens,
                    top_log_probs=top_log_probs, prompt_log_probs=prompt_log_probs, on_text=tell, beams=beams,
                    streams=streams[n * i : n * (i + 1)],
                ))
            while not all(request.done for request in requests):
                self.step()
        finally:
            for request in requests:
                self.cancel(request)
        for request in requests:
            if request.error:
                raise request.error
        return [result for request in requests for result in request.results]

    def submit(
        self, prompt: str | Many[int], *, max_tokens: int = 128, sampling: Sampling = Sampling(), n: int = 1,
        stop: str | Many[str] = (), stop_tokens: Many[int | str] = (), log_probs: bool = True, top_log_probs: int = 0,
        on_text: Callable[[int, str], None] | None = None, on_end: Callable[[Request], None] | None = None,
        streams: list[torch.Generator] | None = None, make_mask: Callable[[], Callable] | None = None,
        beams: Beams | None = None, prompt_log_probs: int | None = None,
    ) -> Request:
        """Put a request in the queue. `make_mask()` gives the mask of one text (`row.Row`). With `beams` the n best texts
        are searched, and told when they are found. `prompt_log_probs`: the prompt is scored too, and so many of the
        likeliest tokens are told at each place; then max_tokens may be 0. Raises RequestError for one that can never be
        answered."""
        scored = prompt_log_probs is not None
        if max_tokens < (0 if scored and not beams else 1):
            raise RequestError(f"max_tokens {max_tokens} is not allowed: it must be at least 1")
        if scored and not 0 <= prompt_log_probs <= 100:
            raise RequestError(f"prompt_log_probs {prompt_log_probs} is not allowed: it must be from 0 to 100")
        if beams and n > beams.width:
            raise RequestError(f"n {n} is more than the {beams.width} beams: a search ends with at most one text a beam")
        if beams and make_mask:
            raise RequestError("beams and a grammar contradict each other: a grammar follows one text; leave one out")
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in stop:
            raise RequestError("a stop string is empty: it would end every text before it began")
        sampling = words.resolve(self.loaded.settings(sampling), self.tokenizer)
        ids = prompt_ids(self.model, self.tokenizer, prompt, bounded=max_tokens > 0)
        if len(ids) > self.model.config.context:
            raise RequestError(f"the prompt has {len(ids):,} tokens and the model's context {self.model.config.context:,}")
        ends = end_ids(self.model, self.tokenizer, (*stop_tokens, *self.loaded.stop_tokens))
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)
        limit = min(max_tokens, self.model.config.context - len(ids))
        rows = [
            Row(Generation(text), ids, sampling, stream, limit, ends, TextStream(self.tokenizer, ids, stop), top_log_probs,
                log_probs or top_log_probs > 0, make_mask and make_mask())
            for stream in streams or generators([ids] * n, sampling)
        ]
        request = Request(rows, on_text, on_end)
        if scored:
            scores = request.scores = PromptScores(prompt_log_probs)
            for row in rows:
                row.result.prompt_log_probs, row.result.prompt_top_log_probs = scores.log_probs, scores.top_log_probs
        copies = beams.width if beams else n
        first, *others = [next(self.numbers) for _ in range(copies)]
        sequence = Sequence(first, list(ids), limit, copies=copies, owner=(request, 0, others))
        if scored and len(ids) > 1:
            sequence.scored = 0
        if beams:
            search = Search(Rules(beams, sampling, ends, self.tokenizer, stop, top_log_probs), ids, limit)
            request.searching = Searching(search, request.sequences, [first, *others])
            sequence.group = Group(copies, request.sequences)
        self.scheduler.add(sequence)
        request.sequences.append(sequence)
        return request

    @torch.inference_mode()
    def step(self) -> bool:
        """Compute one step; whether there was something to do."""
        plan = self.scheduler.plan()
        if not plan.chunks:
            return False
        logits = self.runner.run(plan)
        self.scheduler.computed(plan)
        self._score(plan)
        at, texts = [], []  # the row of logits, and the text that goes on from it
        searching = []
        for i, chunk in enumerate(chunk for chunk in plan.chunks if chunk.last):
            request = chunk.sequence.owner[0]
            if request.done:  # its prompt could not be scored
                continue
            if request.searching:
                request.searching.logits[chunk.sequence.number] = logits[i]
                searching += [request] if request not in searching else []
                continue
            if chunk.sequence.limit == 0:  # only the prompt was asked for
                for row in request.rows:
                    row.done = True
                self._end(request)
                continue
            begun = [chunk.sequence]
            if chunk.sequence.copies > 1:
                begun += self._fork(chunk.sequence)
            texts += begun
            at += [i] * len(begun)
        if texts:
            self._write(logits if at == list(range(len(logits))) else logits[at], texts)
        for request in (each for each in searching if each.sequences):
            self._search(request)
        return True

    def cancel(self, request: Request) -> None:
        """Nobody wants it any more; its blocks are free at once."""
        for sequence in list(request.sequences):
            self.scheduler.remove(sequence)
        request.sequences.clear()

    def _fork(self, sequence: Sequence) -> list[Sequence]:
        request, _, numbers = sequence.owner
        made = self.scheduler.fork(sequence, numbers)
        for i, each in enumerate(made, 1):
            each.owner = (request, i, [])
        request.sequences += made
        return made

    def _search(self, request: Request) -> None:
        """A step of its search, if all beams are there; if that was the last, what it found."""
        try:
            if not request.searching.step(self.scheduler):
                return
        except Error as error:
            self._end(request, error)
            return
        found = request.searching.search.finished
        for i, row in enumerate(request.rows):
            piece = write(row, found[i]) if i < len(found) else ""
            row.done = True
            if request.on_text and piece:
                request.on_text(i, piece)
        self._end(request)

    def _score(self, plan: Plan) -> None:
        """The prompts that are scored, as far as they were just read."""
        at = 0
        for chunk in plan.chunks:
            if chunk.sequence.scored is not None:
                request, states = chunk.sequence.owner[0], self.runner.states[at : at + chunk.n]
                try:
                    request.scores.take(chunk, states, self.model, self.tokenizer.vocab_size)
                except Error as error:
                    self._end(request, error)
            at += chunk.n

    def _write(self, logits: torch.Tensor, texts: list[Sequence]) -> None:
        """Choose the next token of each text, and take it in."""
        rows = [sequence.owner[0].rows[sequence.owner[1]] for sequence in texts]
        try:
            chosen = choose(logits, rows, self.tokenizer.vocab_size)
        except Error:  # of one of them: each for itself, so that the others go on
            chosen = []
            for i, (row, sequence) in enumerate(zip(rows, texts)):
                try:
                    chosen += choose(logits[i : i + 1], [row], self.tokenizer.vocab_size)
                except Error as error:
                    self._end(sequence.owner[0], error)
                    chosen.append(None)
        for sequence, row, token in zip(texts, rows, chosen):
            request, i, _ = sequence.owner
            if token is None or request.error:
                continue
            sequence.tokens.append(token)
            piece = row.advance(token)
            if request.on_text and piece:
                request.on_text(i, piece)
            if row.done:
                self.scheduler.remove(sequence)
                request.sequences.remove(sequence)
                if request.done:
                    self._end(request)

    def _end(self, request: Request, error: Error | None = None) -> None:
        request.error = error
        self.cancel(request)
        if request.on_end:
            request.on_end(request)


def free_memory(device: torch.device) -> int:
    """Bytes that an engine takes for keys and values unless told."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(0.9 * max(0, free - RESERVE))
    try:
        lines = open("/proc/meminfo").read().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(SHARE * max(0, free - RESERVE))
