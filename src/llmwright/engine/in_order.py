"""Any number of prompts through an engine, answered in their order.

Only so many are held as requests that the engine never waits for one; the rest is not even asked for yet.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from ..errors import Error
from .llm import LLM, Request
from .row import Generation

AHEAD = 2  # requests held, for each text that is written at a time
WAITING = 64  # answers that wait for an earlier one, the same way


def answers(engine: LLM, asked: Iterable[dict]) -> Iterator[list[Generation]]:
    """The texts of each of `asked`, which are the arguments of `LLM.submit`. What fails, or is refused, raises its error
    where its texts would have come."""
    asked, most = iter(asked), engine.scheduler.max_texts
    held: deque[Request | Error] = deque()
    there_is_more = True
    try:
        while there_is_more or held:
            unfinished = sum(not _done(each) for each in held)
            while there_is_more and unfinished < AHEAD * most and len(held) < WAITING * most:
                try:
                    options = next(asked)
                except StopIteration:
                    there_is_more = False
                    break
                try:
                    held.append(engine.submit(**options))
                    unfinished += 1
                except Error as error:
                    held.append(error)
            while held and _done(held[0]):
                first = held.popleft()
                error = first if isinstance(first, Error) else first.error
                if error:
                    raise error
                yield first.results
            engine.step()
    finally:
        for each in held:
            if isinstance(each, Request):
                engine.cancel(each)


def _done(each: Request | Error) -> bool:
    return isinstance(each, Error) or each.done
