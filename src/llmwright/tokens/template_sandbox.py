"""Jinja for templates that strangers wrote: its sandbox keeps them from the machine; what they cost is bounded here.

Turns of loops, calls and filters are counted, and no text may grow beyond a limit, so a template that would run forever
or fill the memory ends in an error. It renders as transformers does (trimmed blocks, `break` and `continue`, JSON as it
is, `raise_exception`, `strftime_now`).
"""

import contextvars
import functools
import json
import re
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

STEPS = 300_000  # turns, calls and filters; a conversation of a hundred turns with tools takes some thousand
LENGTH = 10_000_000  # characters or entries
BITS = 10_000  # of a whole number
_PADS = re.compile("center|just|zfill|indent|tabs|batch|slice|bytes")  # functions to which a number is a length
_WIDE = re.compile(r"\d{6}")  # in a format such as %1000000d

_steps: contextvars.ContextVar[list[int]] = contextvars.ContextVar("steps")


class TooMuch(jinja2.TemplateError):
    """The template costs more than any template needs."""


def compile(source: str) -> jinja2.Template:
    """What comes back is for `render`. Raises jinja2.TemplateSyntaxError, or RecursionError for one nested too deep."""
    environment = _Environment()
    tree = environment.parse(source)
    for node in list(tree.find_all(nodes.Concat)):  # a ~ b, as a filter, which is checked
        node.nodes = [nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno)]
    for node in list(tree.find_all(nodes.For)):
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        if node.recursive:  # what it calls itself with passes no filter
            step = nodes.Call(nodes.Name("_step", "load"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
    return environment.from_string(tree.set_environment(environment))


def render(template: jinja2.Template, variables: dict) -> str:
    """The text of a `compile`d template. Raises jinja2.TemplateError, and what Python raises where a template takes the
    wrong type or goes too deep."""
    token = _steps.set([STEPS])
    try:
        return template.render(variables)
    finally:
        _steps.reset(token)


def _step() -> str:
    left = _steps.get()
    left[0] -= 1
    if left[0] < 0:
        raise TooMuch(f"it does not end within {STEPS:,} steps")
    return ""


def _limit(size: int) -> None:
    if size > LENGTH:
        raise TooMuch(f"it makes a text or list of more than {LENGTH:,}")


def _size(value) -> int:
    """Characters, those in a list together; 0 of what has none."""
    if isinstance(value, (list, tuple)):
        return sum(len(part) if isinstance(part, str) else 1 for part in value)
    return len(value) if isinstance(value, str) else 0


def _check(function, arguments: tuple) -> None:
    """Before a call or a filter: one step, and what it would make is not too long."""
    _step()
    name = getattr(function, "__name__", "")
    owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)  # the sandbox wraps str.format
    texts = [value for value in (owner, *arguments) if isinstance(value, str)]
    if _PADS.search(name):
        _limit(max((abs(value) for value in arguments if isinstance(value, int)), default=0))
    if "format" in name and any(map(_WIDE.search, texts)):
        _limit(LENGTH + 1)
    if "replace" in name and len(texts) > 2:
        text, old, new = texts[:3]
        _limit(len(text) + text.count(old) * len(new))
    if "join" in name:
        parts = [value for value in arguments if isinstance(value, (list, tuple))]
        _limit(sum(_size(value) + len(value) * sum(map(len, texts)) for value in parts))


def _checked(function):
    """A filter. What it wants of the environment is said on it as an attribute, which `wraps` takes along."""
    @functools.wraps(function)
    def checked(*arguments, **named):
        _check(function, (*arguments, *named.values()))
        result = function(*arguments, **named)
        _limit(_size(result))
        return result

    return checked


def _counted(items):
    for item in items:
        _step()
        yield item


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} marks what the model wrote, for training; the text is what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
        self.filters = {name: _checked(function) for name, function in {**self.filters, "tojson": _tojson}.items()}
        self.filters["_counted"] = _counted
        self.globals |= {"raise_exception": _raise, "strftime_now": _now, "_step": _step}
        del self.globals["lipsum"]

    @staticmethod
    def concat(parts) -> str:
        found, size = [], 0
        for part in parts:
            size += len(part)
            _limit(size)
            found.append(part)
        return "".join(found)

    def call(self, context, function, *arguments, **named):
        _check(function, (*arguments, *named.values()))
        return super().call(context, function, *arguments, **named)

    def call_binop(self, context, operator, left, right):
        if operator == "*":
            for some, times in ((left, right), (right, left)):
                if isinstance(some, (str, list, tuple)) and isinstance(times, int):
                    _limit(max(_size(some), len(some)) * times)
        elif operator == "+":
            _limit(_size(left) + _size(right))
        elif operator == "%" and isinstance(left, str) and _WIDE.search(left):
            _limit(LENGTH + 1)
        if isinstance(left, int) and isinstance(right, int):
            if max(left.bit_length(), right.bit_length()) * (abs(right) if operator == "**" else 1) > BITS:
                raise TooMuch("it makes numbers without end")
        return super().call_binop(context, operator, left, right)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON as it is, where Jinja's own filter writes it for an HTML page."""
    _limit(indent if isinstance(indent, int) else 0)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _Environment.concat(encoder.iterencode(value))


def _raise(message):
    raise jinja2.TemplateError(message)


def _now(format):
    return datetime.now().strftime(format)
