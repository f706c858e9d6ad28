"""In-context learning: a task shown by an instruction and a few solved examples in the prompt, with no training (Brown
et al. 2020, section 1: zero-, one- and few-shot).

A file holds it, YAML or JSON:

    instruction: Say whether a review is positive or negative.     # may be left out
    format: "Review: {input}\\nSentiment: {output}"                 # the default is "Input: {input}\\nOutput: {output}"
    separator: "\\n\\n"                                              # between the parts; the default
    examples:                                                      # none: zero-shot
      - {input: I loved every minute., output: positive}

or it is plain text with {input} in one place, which is the whole prompt.
"""

import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError

FORMAT = "Input: {input}\nOutput: {output}"
FIELDS = ("instruction", "format", "separator", "examples")


@dataclass(frozen=True)
class Shots:
    """A task. `examples`: (input, output) of each. `separator` stands between the parts of the prompt; what a model
    writes is over when it comes to one, so it is the stop string (None: there is none)."""

    instruction: str = ""
    format: str = FORMAT
    separator: str | None = "\n\n"
    examples: tuple[tuple[str, str], ...] = ()

    def prompt(self, text: str, n: int | None = None) -> str:
        """The prompt that asks for `text`'s output, with the first `n` examples (None: all).

        It ends without a space: most tokenizers put it before the word that follows. Raises RequestError when there
        are fewer than `n`.
        """
        if n is not None and not 0 <= n <= len(self.examples):
            raise RequestError(f"n_shots {n}: it must be from 0 to {len(self.examples)}, the examples that there are")
        question = self.format[: self.format.index("{output}")] if "{output}" in self.format else self.format
        parts = [self.instruction.strip()] if self.instruction.strip() else []
        parts += [_fill(self.format, i, o) for i, o in self.examples[:n]]
        parts.append(_fill(question, text.strip(), "").rstrip())
        return (self.separator or "").join(parts)


def load(path: str | Path) -> Shots:
    """The task in a file. Raises RequestError that names the file and the field at fault."""
    path = Path(path).expanduser()
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path}: not UTF-8 text") from None
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return _from_data(path, _yaml(path, content))
    if "{input}" not in content:
        raise RequestError(f"{path}: no {{input}} in it: the place of what is asked (a task in YAML ends in .yaml)")
    return Shots(format=content.rstrip("\n"), separator=None)


def _yaml(path: Path, content: str):
    import yaml

    try:
        return yaml.load(content, Loader=yaml.BaseLoader)  # all is text: a `yes` stays yes
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RequestError(f"{path}: not valid YAML{place}: {getattr(error, 'problem', None) or 'damaged'}") from None


def _from_data(path: Path, data) -> Shots:
    if not isinstance(data, dict):
        raise RequestError(f"{path}: not a task: it should have the fields {', '.join(FIELDS)}")
    wrong = [str(name) for name in data if name not in FIELDS]
    if wrong:
        raise RequestError(f"{path}: {wrong[0]} is not a field of a task; its fields are {', '.join(FIELDS)}")
    said = {}
    for name in ("instruction", "format", "separator"):
        if name in data and not isinstance(data[name], str):
            raise RequestError(f"{path}: {name} must be text, not a {type(data[name]).__name__}")
        if name in data:
            said[name] = data[name]
    for place in ("{input}", "{output}"):
        if place not in said.get("format", FORMAT):
            raise RequestError(f"{path}: format has no {place}: it says where an example's {place[1:-1]} stands")
    format = said.get("format", FORMAT)
    if format.index("{output}") < format.index("{input}"):
        raise RequestError(f"{path}: format has {{output}} before {{input}}: a model writes after what it reads")
    if said.get("separator") == "":
        raise RequestError(f"{path}: separator is empty: it is what keeps the examples apart")
    examples = data.get("examples") or []
    if not isinstance(examples, list):
        raise RequestError(f"{path}: examples must be a list of {{input: …, output: …}}")
    return Shots(**said, examples=tuple(_example(path, i, example) for i, example in enumerate(examples)))


def _example(path: Path, i: int, example) -> tuple[str, str]:
    if not isinstance(example, dict):
        raise RequestError(f"{path}: examples[{i}] must be {{input: …, output: …}}, not {reprlib.repr(example)}")
    for name in ("input", "output"):
        if not example.get(name):
            raise RequestError(f"{path}: examples[{i}] has no {name}")
    for name, value in example.items():
        if name not in ("input", "output"):
            raise RequestError(f"{path}: examples[{i}] has a field {name}; an example has input and output")
        if not isinstance(value, str):
            raise RequestError(f"{path}: examples[{i}].{name} must be text, not {reprlib.repr(value)}")
    return example["input"].strip(), example["output"].strip()


def _fill(format: str, input: str, output: str) -> str:
    # in one pass, so that braces in an example stay what they are
    places = {"{input}": input, "{output}": output}
    return "".join(places.get(part, part) for part in re.split(r"(\{input\}|\{output\})", format))
