"""`llmwright generate MODEL --prompts FILE`: a text for each line of a file, as JSON lines, in their order."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint.files import new_file
from ..engine import options, words
from ..engine.beam import Beams
from ..engine.generate import generators
from ..engine.in_order import answers
from ..engine.llm import LLM
from ..engine.prompt import prompt_ids
from ..engine.sampler import Sampling
from ..errors import Error, RequestError
from ..progress import Progress, console

OWN = ("prompt", "id", "max_tokens", "stop", "system")  # of a line; the others are those of `engine.options`
MAX_TEXTS = 64  # written at a time
TOGETHER = 128  # sources that an encoder-decoder gets at a time


@dataclass(frozen=True)
class Line:
    """A prompt, what stands beside it, and where it is: `FILE: line 3`."""

    where: str
    prompt: str
    given: dict = field(default_factory=dict)


def read(file: str) -> list[Line]:
    """The prompts of a .txt file, one a line, or of a .jsonl file, `{"prompt": …}` a line; `-` is stdin, of either kind.
    Raises RequestError that names the line at fault."""
    name = "stdin" if file == "-" else file
    if file != "-" and not file.endswith((".txt", ".jsonl")):
        raise RequestError(f"{file}: prompts are read from a .txt file, one a line, or a .jsonl file, {{\"prompt\": …}} a "
                           "line")
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise RequestError(f"{name}: line {number} is not UTF-8 text") from None
    except FileNotFoundError:
        raise RequestError(f"{file}: no such file") from None
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {error.strerror}") from None
    if lines == [""]:
        raise RequestError(f"{name}: no prompt in it")
    parsed = file.endswith(".jsonl") or (file == "-" and re.match(r'\s*\{\s*"', lines[0]) is not None)
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{name}: line {number}"
        if not line.strip():
            raise RequestError(f"{where} is empty; an empty prompt is {{\"prompt\": \"\"}} in a .jsonl file")
        found.append(_parsed(where, line) if parsed else Line(where, line))
    return found


def _parsed(where: str, line: str) -> Line:
    try:
        entry = json.loads(line, parse_constant=_no_number)
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # JSON that was cut within a character
        half = error.object[error.start]
        raise RequestError(f"{where}: \\u{ord(half):04x} is half of a character, whose other half is missing") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not valid JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise RequestError(f"{where}: it must be an object with a prompt that is a text: {{\"prompt\": …}}")
    for name in entry:
        if name not in (*OWN, *options.KNOWN):
            raise RequestError(f"{where}: no option {name!r}; there are {', '.join((*OWN, *options.KNOWN))}")
    prompt, given = entry.pop("prompt"), {name: value for name, value in entry.items() if value is not None}
    count, stop = given.get("max_tokens", 1), given.get("stop", [])
    if type(count) is not int or count < 1:
        raise RequestError(f"{where}: max_tokens {count!r} is not allowed: it must be a whole number from 1 up")
    if not isinstance(stop, str) and not (isinstance(stop, list) and all(isinstance(each, str) for each in stop)):
        raise RequestError(f"{where}: stop must be a text, or a list of texts")
    if stop == "" or "" in list(stop):
        raise RequestError(f"{where}: a stop string is empty: it would end every text before it began")
    if not isinstance(given.get("system", ""), str):
        raise RequestError(f"{where}: system must be a text")
    if isinstance(given.get("logit_bias"), dict):  # JSON has no numbers as names
        given["logit_bias"] = {int(k) if k.isdecimal() else k: value for k, value in given["logit_bias"].items()}
    return Line(where, prompt, given)


def _no_number(name: str):
    raise ValueError(f"{name} is no number of JSON's")


def check_output(output: str | None) -> None:
    if output is None:
        return
    path = Path(output).expanduser()
    if path.suffix != ".jsonl":
        raise RequestError(f"-o {output}: texts are written as JSON lines: name it something.jsonl")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise RequestError(f"-o {output}: " + ("a directory" if path.is_dir() else f"no directory {path.parent}"))


@contextlib.contextmanager
def writer(output: str | None):
    """What takes a record: a line of a new file, or of stdout."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8")
        yield lambda record: (sys.stdout.write(_dumped(record)), sys.stdout.flush())
        return
    try:
        with new_file(Path(output).expanduser()) as aside, open(aside, "w", encoding="utf-8") as file:
            yield lambda record: file.write(_dumped(record))
    except OSError as error:
        raise RequestError(f"-o {output}: cannot be written: {error.strerror}") from None


def _dumped(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Wish:
    """What is asked for, of every line but where it says otherwise. `choose(options)`: how tokens are chosen, of the
    options that a line has beside those of the command; `prompt(line)`: what the model gets to read."""

    choose: Callable[[dict], tuple[Sampling, Beams | None]]
    prompt: Callable[[Line], str | list[int]]
    max_tokens: int = 128
    n: int = 1
    stop: Sequence[str] = ()
    stop_tokens: Sequence[int | str] = ()
    top_log_probs: int = 0


def answer(loaded, lines: list[Line], wish: Wish, output: str | None, record: Callable[[Line, object], dict]) -> None:
    """Write the texts of each line, `record(line, result)` of each. Raises an error that names the line."""
    asked = _Asked(loaded, lines, wish)
    seen = output is not None or not sys.stdout.isatty()
    progress = console() if seen and len(lines) > 1 else Progress()  # else the texts themselves show how it goes on
    written, found = 0, asked.translations() if loaded.kind == "encoder-decoder" else asked.continuations()
    with writer(output) as write, progress.task("generate", total=len(lines), unit="prompts") as task:
        for line in lines:
            try:
                results = next(found)
            except Error as error:
                raise type(error)(f"{line.where}: {error}") from None
            for i, result in enumerate(results):
                write({**record(line, result), **({"index": i} if wish.n > 1 else {})})
            written += sum(len(result.ids) for result in results)
            task.advance(1, tokens=f"{written:,}")


class _Asked:
    """Each line as the arguments of `LLM.submit` or of `LanguageModel.run`; what is wrong with one is said before any text
    is written."""

    def __init__(self, loaded, lines: list[Line], wish: Wish):
        self.loaded, self.lines, self.wish = loaded, lines, wish
        usual = self._choose({})
        self.chosen = []
        for line in lines:
            try:
                own = {name: value for name, value in line.given.items() if name not in OWN}
                self.chosen.append(self._choose(own) if own else usual)
                prompt_ids(loaded.model, loaded.tokenizer, wish.prompt(line))
            except RequestError as error:
                raise RequestError(f"{line.where}: {error}") from None

    def _choose(self, own: dict) -> tuple[Sampling, Beams | None]:
        sampling, beams = self.wish.choose(own)
        words.resolve(sampling, self.loaded.tokenizer)
        if beams and self.wish.n > beams.width:
            raise RequestError(f"n {self.wish.n} is more than the {beams.width} beams")
        return sampling, beams

    def options(self, i: int) -> dict:
        """Of line i, all but the prompt."""
        given, wish, (sampling, beams) = self.lines[i].given, self.wish, self.chosen[i]
        stop = given.get("stop", wish.stop)
        return dict(max_tokens=given.get("max_tokens", wish.max_tokens), n=wish.n, sampling=sampling, beams=beams,
                    stop=(stop,) if isinstance(stop, str) else tuple(stop), stop_tokens=tuple(wish.stop_tokens),
                    top_log_probs=wish.top_log_probs)

    def continuations(self) -> Iterator[list]:
        loaded, counts = self.loaded, {}

        def asked() -> Iterator[dict]:
            for i, line in enumerate(self.lines):
                ids = prompt_ids(loaded.model, loaded.tokenizer, self.wish.prompt(line))
                options = self.options(i)
                sampling = options["sampling"]  # a prompt that comes twice gets two draws
                streams = generators([ids] * self.wish.n, sampling, counts.setdefault(sampling.seed, {}))
                yield {**options, "prompt": ids, "streams": streams}

        width = max((beams.width for _, beams in self.chosen if beams), default=1)
        return answers(LLM(loaded, max_texts=max(MAX_TEXTS, self.wish.n, width)), asked())

    def translations(self) -> Iterator[list]:
        """An encoder-decoder has no engine: a batch at a time, of lines that are asked for in the same way."""
        n, at = self.wish.n, 0
        while at < len(self.lines):
            options, end = self.options(at), at + 1
            while end < min(at + TOGETHER, len(self.lines)) and self.options(end) == options:
                end += 1
            found = self.loaded.run([self.wish.prompt(line) for line in self.lines[at:end]], **options)
            yield from (found[i : i + n] for i in range(0, len(found), n))
            at = end
