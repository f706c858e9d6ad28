"""Which filters, tests and methods a template may use, and what each of them pays before it runs.

The lists hold what published chat templates use. What is not on them is refused: to format a text to a width, to wrap
it, to translate it, … makes much out of little, and no template needs it.
"""

import functools
import json
import re
from datetime import datetime
from types import BuiltinMethodType, GeneratorType, MethodType

import jinja2
from jinja2 import defaults
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import safe_range
from jinja2.utils import Namespace

from .template_budget import BITS, ENTRY, STEP, TooMuch, concat, counted, entries, limit, spend, weigh

# How many times longer than to copy a text it takes at most to …
CASE, WORDS, ESCAPE, JSON = 5, 60, 6, 5
SLOW = 5 * STEP  # a call that is slow even with nothing to do


def search(needle: int, backwards: bool = False) -> int:
    """… find one of a length in it. Forwards it is linear for long ones."""
    return 1 + (needle // 4 if backwards else min(needle, 100) // 8)


# filters


def _text(function, times: int = 1):
    skip = _skip(function)

    @functools.wraps(function)
    def priced(*arguments, **named):
        spend(STEP + (times - 1) * weigh(*arguments[skip:], *named.values(), printed=True))
        return _made(function(*arguments, **named))

    return priced


def _items(function, ordered: bool = False):
    """A filter that does something with each entry. What comes one by one is made at once: generators upon generators,
    each of which waits for the next, would cost nothing until they overflow the stack."""
    skip = _skip(function)

    @functools.wraps(function)
    def priced(*arguments, **named):
        value, *rest = arguments[skip:]
        value = entries(value)
        spend(SLOW + len(value) * (STEP + weigh(*rest, *named.values())))
        if ordered:
            spend(weigh(value) * len(value).bit_length())
        result = function(*arguments[:skip], value, *rest, **named)
        return _one_by_one(result) if isinstance(result, GeneratorType) else result

    return priced


def _one_by_one(items):
    return counted(list(items))


def _skip(function) -> int:
    """1 where the first argument is the environment or the context."""
    return int(hasattr(function, "jinja_pass_arg"))


def _made(text):
    if isinstance(text, str):
        limit(len(text))
        spend(len(text))
    return text


def _listed(value):
    spend(STEP)
    return list(entries(value))


def _trimmed(value, chars=None):
    spend(STEP)
    if chars is not None:
        weigh(value, chars, printed=True)
        spend(len(str(value)) * (len(chars) // 8))
    elif type(value) is str:
        spend(len(value))
    else:
        weigh(value, printed=True)
    return defaults.DEFAULT_FILTERS["trim"](value, chars)


def _reversed(value):
    spend(STEP)
    if isinstance(value, str):
        return _made(str(value)[::-1])
    return _one_by_one(reversed(list(entries(value))))


@jinja2.pass_eval_context
def _joined(context, value, d="", attribute=None):
    value = entries(value)
    spend(STEP + len(value) * weigh(d, attribute, printed=True))
    if attribute is not None:
        value = [make_attrgetter(context.environment, attribute)(item) for item in value]
    weigh(value, printed=True)
    separator = str(d)
    limit(len(separator) * len(value))
    return _made(separator.join(map(str, value)))


def _replaced(s, old, new, count=None):
    spend(STEP)
    weigh(s, old, new, printed=True)
    return replace(str(s), str(old), str(new), -1 if count is None else count)


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    spend(len(text) * search(len(old)))
    limit(len(text) + text.count(old) * len(new))
    return _made(text.replace(old, new, count))


def _indented(s, width=4, first=False, blank=False):
    spend(STEP + ENTRY * weigh(s, width, printed=True))
    limit(len(str(s).splitlines()) * (len(width) if isinstance(width, str) else abs(width)))
    return _made(defaults.DEFAULT_FILTERS["indent"](s, width, first, blank))


def _summed(function):
    priced = _items(function)

    @functools.wraps(function)
    def summed(environment, iterable, attribute=None, start=0):
        _only_numbers("sum", start)
        return priced(environment, iterable, attribute, start)

    return summed


def _number(function):
    @functools.wraps(function)
    def priced(value, *arguments, **named):
        spend(STEP + weigh(value, *arguments, *named.values()))
        if isinstance(value, str) and len(value) > BITS // 4:
            raise TooMuch("it makes numbers without end")
        return function(value, *arguments, **named)

    return priced


def _rounded(value, precision=0, method="common"):
    spend(STEP)
    _only_numbers("round", value, precision)
    if isinstance(precision, int) and abs(precision) > 400:
        raise TooMuch("it makes numbers without end")
    return defaults.DEFAULT_FILTERS["round"](value, precision, method)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON as it is, where Jinja's own filter writes it for an HTML page."""
    spend(SLOW)
    size = weigh(value)
    spend((JSON - 1) * size)
    limit(size)
    if weigh(indent, separators) > 1000 or isinstance(indent, int) and indent > 1000:
        raise TooMuch("it indents JSON without end")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _made(encoder.encode(value)) if indent is separators is None else concat(encoder.iterencode(value))


def _string(value):
    return value if type(value) is str else _stringed(value)


def filters() -> dict:
    own = defaults.DEFAULT_FILTERS
    texts = {"lower": CASE, "upper": CASE, "capitalize": CASE, "title": WORDS, "escape": ESCAPE, "e": ESCAPE,
             "safe": ESCAPE}
    ordered = ("sort", "unique", "min", "max", "groupby", "dictsort")
    items = ("map", "select", "reject", "selectattr", "rejectattr", "items", *ordered)
    return {
        **{name: own[name] for name in ("length", "count", "default", "d", "first", "last", "abs")},
        **{name: _text(own[name], times) for name, times in texts.items()},
        **{name: _items(own[name], name in ordered) for name in items},
        "trim": _trimmed, "list": _listed, "reverse": _reversed, "join": _joined, "replace": _replaced,
        "indent": _indented, "sum": _summed(own["sum"]), "int": _number(own["int"]), "float": _number(own["float"]),
        "round": _rounded, "tojson": _tojson, "string": _string,
    }


_stringed = _text(defaults.DEFAULT_FILTERS["string"])


# tests and comparisons


def tests() -> dict:
    own = dict(defaults.DEFAULT_TESTS)
    for name in ("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=",
                 "le"):
        own[name] = _compared(own[name])
    for name in ("odd", "even", "divisibleby"):
        own[name] = _of_numbers(name, own[name])
    return {**own, "in": contains, "lower": _text(own["lower"], CASE), "upper": _text(own["upper"], CASE)}


def _compared(function):
    @functools.wraps(function)
    def compared(left, right):
        spend(STEP)
        if not type(left) is type(right) is str:
            weigh(left, right)
        elif len(left) > STEP:
            spend(min(len(left), len(right)))
        return function(left, right)

    return compared


def _of_numbers(name: str, function):
    """`%`, which writes a text where there is one on its left."""
    @functools.wraps(function)
    def test(*values):
        spend(STEP)
        _only_numbers(name, *values)
        return function(*values)

    return test


def _only_numbers(name: str, *values) -> None:
    for value in values:
        if not isinstance(value, (int, float, jinja2.Undefined)):
            raise TypeError(f"{name} is for numbers, not for a {type(value).__name__}")


def contains(value, seq) -> bool:
    """`value in seq`"""
    spend(STEP)
    if isinstance(seq, str):
        spend(len(seq) * search(len(value)) if isinstance(value, str) else 0)
    elif isinstance(seq, dict):
        weigh(value)
    elif isinstance(seq, range):
        spend(0 if isinstance(value, int) else ENTRY * len(seq))
    else:
        seq = entries(seq)
        weigh(seq, value)
    return value in seq


# what may be called

_FIND = ("find", "index", "count", "split", "partition")
_FIND_BACK = ("rfind", "rindex", "rsplit", "rpartition")
_SPLIT = ("split", "rsplit", "splitlines")
_STRIP = ("strip", "lstrip", "rstrip")
_ENDS = ("startswith", "endswith", "removeprefix", "removesuffix")
_CASES = ("lower", "upper", "title", "capitalize", "casefold", "swapcase")
_IS = ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable",
       "isspace", "istitle", "isupper")

METHODS = {
    str: frozenset((*_FIND, *_FIND_BACK, *_SPLIT, *_STRIP, *_ENDS, *_CASES, *_IS, "replace", "join")),
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    list: frozenset(("index", "count", "copy")),
    tuple: frozenset(("index", "count")),
    LoopContext: frozenset(("cycle", "changed")),
}


def owner_kind(owner):
    return next((kind for kind in METHODS if isinstance(owner, kind)), None)


def call(function, arguments: tuple, named: dict):
    """Before a call: what it costs. The arguments to call it with come back."""
    spend(STEP)
    kind = type(function)
    if kind is BuiltinMethodType or kind is MethodType:
        owner, name = function.__self__, function.__name__
        kind = owner_kind(owner)
        if kind is None or name not in METHODS[kind]:
            raise SecurityError(f"it calls {name} of a {type(owner).__name__}, which is not allowed")
        if kind is str:
            return _call_text(owner, name, arguments, named)
        if kind is dict:
            weigh(*arguments[:1])
            spend(ENTRY * len(owner) if name == "copy" else 0)
        else:
            weigh(*arguments, *(owner if kind in (list, tuple) else ()))
    elif function is dict or function is Namespace:
        weigh(*arguments, named)
    elif not (kind is Macro or kind is LoopContext or isinstance(function, jinja2.Undefined)
              or any(function is known for known in GLOBALS.values())):
        raise SecurityError(f"it calls a {kind.__name__}, which is not allowed")
    return arguments


def _call_text(text: str, name: str, arguments: tuple, named: dict) -> tuple:
    values = (*arguments, *named.values())
    pattern = max((len(value) for value in values if isinstance(value, str)), default=0)
    if name == "join" and arguments:
        items = entries(arguments[0])
        limit(weigh(items) + len(text) * len(items))
        spend(len(text) * len(items))
        if type(text) is not str:  # each is escaped by itself
            spend(len(items) * (STEP + ESCAPE * len(text)))
        return (list(items), *arguments[1:])
    if name == "replace" and len(values) > 1:
        weigh(*values)
        if all(isinstance(value, str) for value in values[:2]):
            spend(len(text) * search(pattern))
            made = len(text) + text.count(values[0]) * len(values[1])
            limit(made)
            spend(made * (1 if type(text) is str else ESCAPE))
    elif name in _ENDS:
        weigh(*values)
    else:
        weigh(*values)
        times = CASE if name in _CASES or name in _IS else 1
        if name in _STRIP:
            times += pattern // 8
        elif name in _FIND or name in _FIND_BACK:
            times = search(pattern, name in _FIND_BACK)
        spend(len(text) * times)
        if name in _SPLIT:
            spend(ENTRY * (text.count(values[0]) if pattern and isinstance(values[0], str) else len(text) // 2))
            spend(ENTRY * (len(text) // 2) if name == "splitlines" else 0)
    return arguments


_WIDE = re.compile(r"%[^a-zA-Z%]*\d")


def raise_exception(message):
    weigh(message, printed=True)
    raise jinja2.TemplateError(str(message))


def strftime_now(format):
    spend(SLOW)
    if isinstance(format, str) and (len(format) > 1000 or _WIDE.search(format)):
        raise TooMuch("it writes a date without end")
    return datetime.now().strftime(format)


GLOBALS = {"range": safe_range, "dict": dict, "namespace": Namespace, "raise_exception": raise_exception,
           "strftime_now": strftime_now}
FILTERS, TESTS = filters(), tests()
