"""A conversation with a decoder: its template says what the model reads, and what was read once is kept.

Each turn is rendered whole. Of its tokens, those that the cache of keys and values begins with are not computed again
(`kept.py`), so a turn costs what is new in it.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoint.files import write_json
from ..errors import RequestError
from ..tokens.chat_template import ChatTemplate, find
from .beam import Beams
from .generate import Generation
from .kept import KeptStepper, Stopped
from .options import CUTS, SEARCH, choose
from .sampler import Sampling

MAX_TOKENS = 512
# Where the model's generation_config.json says nothing. Small models lose their way at what is usual for large ones: of
# 16 answers by SmolLM2-135M, 0.7 and 0.9 let 5 run in circles, these none.
USUAL = Sampling(temperature=0.7, top_p=0.9)
SMALL, SMALL_UP_TO = Sampling(temperature=0.2, top_p=0.9, repetition_penalty=1.1), 1_000_000_000
HEAT = ("temperature", *CUTS)


def template(loaded) -> ChatTemplate:
    """The template of a loaded model. Raises RequestError where it has none."""
    if loaded.kind != "decoder":
        raise RequestError(f"{loaded.path}: a conversation is written by a decoder; this model is an {loaded.kind}")
    found = find(loaded.tokenizer, str(loaded.path))
    if found is None:
        raise RequestError(
            f"{loaded.path}: this model has no chat template: it goes on with a text and was not made to answer; "
            f'llmwright generate {loaded.path} "Once upon a time" does that'
        )
    return found


def usual(loaded) -> Sampling:
    """How an answer is drawn where nobody says: as the model's makers advise; else by its size, since small models lose
    their way sooner."""
    if loaded.advice:
        return Sampling(**loaded.advice)
    return SMALL if loaded.model.size < SMALL_UP_TO else USUAL


def how(loaded, given: dict, n: int = 1) -> tuple[Sampling, Beams | None]:
    """How an answer is written: as `given` (see `options.choose`), else as the model's makers advise."""
    default = usual(loaded)
    sampling, beams = choose(given, default, n)
    if "repetition_penalty" not in given and not sampling.greedy:
        sampling = replace(sampling, repetition_penalty=default.repetition_penalty)
    return sampling, beams


def answer(
    loaded, messages: Sequence[dict], *, max_tokens: int = MAX_TOKENS, tools: Sequence[dict] | None = None,
    template_options: dict | None = None, on_text: Callable[[str], None] | None = None, stop: str | Sequence[str] = (),
    **options,
) -> Generation:
    """What the model answers to `messages`; if the last of them is the assistant's, how it goes on."""
    made = template(loaded)
    unfinished = bool(messages) and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"
    ids = made.encode(
        messages, tools=tools, add_generation_prompt=not unfinished, continue_final_message=unfinished,
        **(template_options or {}),
    )
    sampling, beams = how(loaded, options)
    return loaded.run(
        [ids], max_tokens=max_tokens, sampling=sampling, beams=beams, stop=stop, stop_tokens=made.ends,
        on_text=on_text and (lambda i, text: on_text(text)),
    )[0]


@dataclass(frozen=True)
class Answer:
    """`text`, and why it ended: "stop" (the model was done), "length" (`max_tokens` or the context), "stopped" (by the
    user; what was written until then counts).

    Tokens: `written`; `prompt`, which the model read, of which `reused` were kept from before. Seconds: `first`, to the
    first token, and `rest`, for the others. `dropped`: turns that no longer fitted before this one.
    """

    text: str
    finish_reason: str
    written: int
    prompt: int
    reused: int
    first: float
    rest: float
    dropped: int = 0


class Chat:
    """`messages` is all that was said; the first may be the system's. `ask` says something and gets an answer.

    loaded: what `llmwright.load` returns. options: as for `set`.
    """

    def __init__(self, loaded, system: str | None = None, *, max_tokens: int = MAX_TOKENS, **options):
        self.loaded, self.template = loaded, template(loaded)
        self.options: dict = {}
        self.seed, self.sampling = secrets.randbits(31), how(loaded, {})[0]
        self.draws = 0
        for name, value in {"max_tokens": max_tokens, **options}.items():
            if value is not None:
                self.set(name, value)
        self.kept = KeptStepper(loaded.model)
        self.messages: list[dict] = []
        self.first = 0  # of the messages after the system's, the first that still fits
        self.set_system(system)

    def set(self, name: str, value) -> None:
        """Change how the next answers are drawn: a field of `Sampling`, greedy, or max_tokens. Raises RequestError for
        a value that is not allowed; nothing is changed then."""
        if name == "max_tokens":
            if not isinstance(value, int) or value < 1:
                raise RequestError(f"max_tokens {value} is not allowed: it must be a whole number from 1 up")
            self.max_tokens = value
            return
        others = [other for other in self.options if not (other == "greedy" or (name == "greedy" and other in HEAT))]
        changed = {other: self.options[other] for other in others} | {name: value}
        if name in ("beams", *SEARCH):
            raise RequestError(f"{name} is for generate: a conversation is drawn")
        self.sampling, _ = how(self.loaded, changed)
        self.options = changed
        if name == "seed":
            self.seed, self.draws = value, 0

    @property
    def system(self) -> str | None:
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else None

    def set_system(self, text: str | None) -> None:
        """What the model is told before all else; None leaves that to its template. What was said stays.

        Raises RequestError where the template has no place for it; nothing is changed then.
        """
        said = self.messages[1:] if self.system is not None else self.messages
        changed = [{"role": "system", "content": text}, *said] if text is not None else list(said)
        self.template.render([*changed, {"role": "user", "content": "Hello."}] if not said else changed)
        self.messages = changed

    def clear(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages, self.first = self.messages[: self.system is not None], 0

    def ask(self, text: str, **options) -> Answer:
        """Say `text` and get an answer; both are then part of the conversation. If it is stopped before its first word,
        or fails, neither is. `on_text(piece)` gets the answer as it comes; `stopped()` is asked whether to stop it."""
        before = list(self.messages), self.first
        self.messages.append({"role": "user", "content": text})
        try:
            return self._answer(*before, **options)
        except BaseException:
            self.messages, self.first = before
            raise

    def again(self, **options) -> Answer:
        """Another answer in place of the last one. Raises RequestError when nothing was asked yet."""
        before = list(self.messages), self.first
        self._forget_answer()
        self.draws += 1
        try:
            return self._answer(*before, **options)
        except BaseException:
            self.messages, self.first = before
            raise

    def undo(self) -> str:
        """Forget the last question and its answer; returns the question."""
        self._forget_answer()
        self.first = 0  # what was dropped may fit again
        return self.messages.pop()["content"]

    def tokens(self) -> int:
        """How many tokens the conversation takes of the context now."""
        return len(self._ids(False)) if self.messages else 0

    def save(self, path: Path | str) -> bool:
        """Write the conversation as JSON, in the form that OpenAI's and others' interfaces take; whether it took the
        place of an earlier one. Raises RequestError where something else is, and leaves it as it is."""
        file = Path(path).expanduser()
        try:
            there = file.exists() and file.stat().st_size > 0
            if there:
                _read(file)
            write_json(file, {"model": str(self.loaded.path), "messages": self.messages})
        except (OSError, ValueError) as error:
            raise RequestError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
        except RequestError:
            raise RequestError(f"{path}: it is there already, and no saved conversation; save under another name") from None
        return there

    def load(self, path: Path | str) -> None:
        """Go on with a conversation that `save` wrote, or with a JSON list of messages. Raises RequestError when it is
        none, or the template does not take it; nothing is changed then."""
        path = Path(path).expanduser()
        try:
            found = _read(path)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            if found != []:
                self.template.render(found)
        except RequestError as error:
            raise RequestError(f"{path}: not a conversation for this model: {error}") from None
        self.messages, self.first = found, 0

    def _forget_answer(self) -> None:
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise RequestError("nothing was asked yet")
        del self.messages[asked[-1] + 1 :]

    def _ids(self, question: bool = True) -> list[int]:
        after = self.system is not None
        return self.template.encode(
            self.messages[:after] + self.messages[after + self.first :], add_generation_prompt=question
        )

    def _fit(self) -> tuple[list[int], int]:
        """The ids to answer, and how many turns had to go for the answer to have room."""
        context, before, ids = self.loaded.model.config.context, self.first, self._ids()
        room = min(self.max_tokens, context // 4)
        dropped, wanted = 0, context - room
        after = self.system is not None
        while len(ids) > wanted:
            wanted = min(wanted, context * 3 // 4)  # more than is needed, so that the next turns need not drop again
            said = self.messages[after:]
            following = [i for i in range(self.first + 1, len(said)) if said[i]["role"] == "user"]
            if not following:
                break
            self.first, dropped = following[0], dropped + 1
            ids = self._ids()
        if len(ids) >= context:
            self.first = before
            system = " with the system message" if after else ""
            raise RequestError(
                f"this message{system} has {len(ids):,} tokens, and the model reads {context:,} with its answer: say "
                "it in fewer words"
            )
        return ids, dropped

    def _answer(
        self, messages: list[dict], first: int, *, on_text: Callable[[str], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Answer:
        ids, dropped = self._fit()
        pieces, times = [], [time.perf_counter()]

        def take(_, piece: str) -> None:
            pieces.append(piece)
            if on_text:
                on_text(piece)

        def asked() -> bool:
            if len(self.kept.ids) >= len(ids):  # the prompt was read: a token each time
                times.append(time.perf_counter())
            return stopped()

        self.kept.stopped = asked
        chosen = replace(self.sampling, seed=self.seed + self.draws)
        try:
            result = self.loaded.run(
                [ids], max_tokens=self.max_tokens, sampling=chosen, stop_tokens=self.template.ends, on_text=take,
                make_stepper=self.kept,
            )[0]
            text, reason, written = result.text, result.finish_reason, len(result.ids)
        except Stopped:
            text, reason, written = "".join(pieces), "stopped", max(0, len(self.kept.ids) - len(ids)) + bool(pieces)
        times.append(time.perf_counter())
        if reason == "stopped" and not text.strip():
            self.messages, self.first = messages, first
        else:
            self.messages.append({"role": "assistant", "content": text})
        first, rest = times[1] - times[0], times[-1] - times[1]
        return Answer(text, reason, written, len(ids), self.kept.reused, first, rest, dropped)


def _read(path: Path) -> list[dict]:
    """The messages of a saved conversation. Raises RequestError for a file that is none, and OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not a saved conversation: {str(error).splitlines()[0]}") from None
    found = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise RequestError(f"{path}: not a conversation: it must be a list of messages, [{{role: …, content: …}}]")
    for i, message in enumerate(found):
        for key in ("role", "content"):
            if not isinstance(message, dict) or not isinstance(message.get(key), str):
                raise RequestError(f"{path}: not a conversation: messages[{i}] has no {key} that is a text")
    return found
