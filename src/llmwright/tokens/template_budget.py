"""What a template may cost: every operation pays from one budget for what it reads and makes.

A value is weighed as it would be printed: a list that stands in another ten times counts ten times. So a few lines that
stack lists upon lists pay for what they would print, and the weighing itself ends when the budget does.

A long conversation has a larger budget: some templates go through all messages at each of them (what tools were called
before?), so what a message costs grows with their number.
"""

import contextvars
import time

import jinja2
from jinja2.exceptions import SecurityError

STEPS = 900_000  # calls, filters, tests and turns of loops; a conversation of 400 turns takes 20,000
STEP = 100  # characters that cost as much as a step
ENTRY = 30  # characters that cost as much as an entry of a list, which takes some 60 bytes where it is new
LENGTH = 10_000_000  # characters or entries of one text or list
SECONDS = 5  # of processor time, where all of the above has overlooked something
MESSAGES, MOST = 100, 10  # each so many messages add another budget, up to so many: some ten seconds of a quadratic one
BITS = 10_000  # of a whole number

VIEWS = tuple(type(view) for view in ({}.keys(), {}.values(), {}.items()))

_LISTS = (list, tuple, *VIEWS)

_budget: contextvars.ContextVar["Budget"] = contextvars.ContextVar("budget")


class TooMuch(jinja2.TemplateError):
    """The template costs more than any template needs."""


class Budget:
    """For a conversation of so many messages. left: characters. watch: where the clock is looked at next."""

    __slots__ = ("steps", "seconds", "left", "watch", "end", "token")

    def __init__(self, messages: int = 0):
        times = min(max(1, messages // MESSAGES), MOST)
        self.steps, self.seconds = STEPS * times, SECONDS * min(times, 3)
        self.left = self.watch = self.steps * STEP
        self.end = time.thread_time() + self.seconds  # of this thread: a busy machine makes no template too long

    def __enter__(self):
        self.token = _budget.set(self)
        return self

    def __exit__(self, *_):
        _budget.reset(self.token)

    def look(self):
        if self.left < 0:
            raise TooMuch(f"it does not end within {self.steps:,} steps (one for each {STEP} characters)")
        if time.thread_time() > self.end:
            raise TooMuch(f"it takes more than {self.seconds} seconds")
        self.watch = max(0, self.left - 1000 * STEP)


def spend(characters: int) -> None:
    """Raises TooMuch at the budget's end, and LookupError outside of one: nothing that costs runs while compiling."""
    budget = _budget.get()
    budget.left -= characters
    if budget.left < budget.watch:
        budget.look()


def limit(size: int) -> None:
    if size > LENGTH:
        raise TooMuch(f"it makes a text or list of more than {LENGTH:,}")


def weigh(*values, printed: bool = False) -> int:
    """Spends what reading all of the values costs, and returns it.

    printed: whether they become text, which is for data only: SecurityError for a function, a namespace, …
    """
    budget = _budget.get()
    before = left = budget.left
    todo = list(values)
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind is str:
            left -= len(value)
            continue
        if value is None or kind is bool or kind is float:
            continue
        if kind is int:
            left -= value.bit_length() >> 1
            continue
        more = ()
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, dict):
            left -= 2 * ENTRY * len(value)
            more = (*value, *value.values()) if left > 0 else ()
        elif isinstance(value, _LISTS):
            left -= ENTRY * len(value)
            more = value
        elif printed and not isinstance(value, (range, jinja2.Undefined)):
            raise SecurityError(f"it writes a {type(value).__name__}, which is no text")
        if left < budget.watch:
            budget.left = left
            budget.look()
        todo.extend(more)
    budget.left = left
    if left < budget.watch:
        budget.look()
    return before - left


def entries(value):
    """What a loop over `value` meets, paid for. An iterator is gone through."""
    if isinstance(value, (str, list, tuple, dict, range, jinja2.Undefined, *VIEWS)):
        spend(ENTRY * len(value))
        return value
    return list(counted(value))


def counted(items, cost: int = 0):
    """Each pays a step and `cost` when it is reached."""
    for item in items:
        spend(STEP + cost)
        yield item


def concat(parts) -> str:
    found, size = [], 0
    for part in parts:
        size += len(part)
        if size > LENGTH:
            limit(size)
        found.append(part)
    spend(size)
    return "".join(found)
