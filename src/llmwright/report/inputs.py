"""Reading what a run left behind, forgivingly.

A report is made of whatever is there: a run that was killed, one without samples, one from an older version. A part
whose input is missing or unreadable raises `Missing`, and the page says so in that part's place.
"""

import json
from pathlib import Path

import yaml


class Missing(Exception):
    """An input that is not there or cannot be read; the message is the sentence the page shows."""


def read_json(path: Path) -> dict:
    """The JSON object in `path`. Raises Missing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        raise Missing(f"This run has no {path.name}.") from None
    except ValueError as error:
        raise Missing(f"{path.name} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise Missing(f"{path.name} holds a {type(content).__name__}; a JSON object belongs there.")
    return content


def read_lines(path: Path) -> list[dict]:
    """The JSON objects in `path`, one a line. A line cut short by a kill is left out. Raises Missing."""
    objects = []
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    objects.append(value)
    except OSError:
        raise Missing(f"This run has no {path.name}.") from None
    if not objects:
        raise Missing(f"{path.name} holds no complete line.")
    return objects


def read_recipe(path: Path) -> dict:
    """The recipe as plain data with its text under `"text"`: shown as it is, so never validated. Raises Missing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        tree = yaml.safe_load(text)
    except OSError:
        raise Missing(f"This run has no {path.name}.") from None
    except yaml.YAMLError:
        raise Missing(f"{path.name} is not valid YAML.") from None
    return {**(tree if isinstance(tree, dict) else {}), "text": text}


def or_empty(read, path: Path):
    """`read(path)`, or an empty dict where the input is missing: for figures that are merely nice to have."""
    try:
        return read(path)
    except Missing:
        return {}


def section(build, *arguments) -> dict:
    """What `build` makes of the inputs, or `{"missing": sentence}`: one damaged file must not cost the whole page."""
    try:
        return build(*arguments)
    except Missing as reason:
        return {"missing": str(reason)}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, ZeroDivisionError) as error:
        return {"missing": f"This part could not be shown: {type(error).__name__}: {error}."}
