"""What a user asks for, as what the engine takes. Options that contradict each other are refused in one line: one of
them would silently do nothing."""

from dataclasses import fields, replace

from ..errors import RequestError
from .beam import Beams
from .sampler import Sampling

CUTS = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical": 1.0}  # each with the value that cuts nothing
SEARCH = ("length_penalty", "early_stopping")
KNOWN = ("greedy", "beams", *SEARCH, *(field.name for field in fields(Sampling)))


def choose(given: dict, default: Sampling = Sampling(), n: int = 1) -> tuple[Sampling, Beams | None]:
    """How to choose tokens, from the options that were `given` (None counts as not given); `default` fills the rest.

    `given` has the fields of `Sampling` and `Beams` (whose width is called beams), and greedy. `n`: how many texts of
    one prompt. Raises RequestError for an option that is unknown, out of range, or of no effect beside another one.
    """
    given = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in given if name not in KNOWN]
    if wrong:
        known = ("max_tokens", "n", "stop", "stop_tokens", "top_log_probs", *KNOWN)
        raise RequestError(f"no option {', '.join(wrong)}; there are {', '.join(known)}")
    if not isinstance(given.get("greedy", False), bool):
        raise RequestError(f"greedy {given['greedy']!r} is not allowed: it must be true or false")
    greedy, width = given.pop("greedy", False), given.pop("beams", None)
    search = {name: given.pop(name) for name in SEARCH if name in given}
    heat = f"temperature {given.get('temperature')}" if "temperature" in given else None
    cuts = [f"{name} {given[name]}" for name, off in CUTS.items() if given.get(name, off) != off]
    if width is not None:
        beams = Beams(width, **search)
        if greedy or heat or cuts:
            _contradict("beams", "greedy" if greedy else heat or cuts[0], "a beam search draws nothing")
        return Sampling(**{**given, "temperature": 0.0}), beams
    if search:
        name, value = next(iter(search.items()))
        raise RequestError(f"{name} {value} is for a beam search: give beams too")
    chosen = Sampling(**given)
    cold = heat is not None and chosen.greedy
    if greedy and heat and not cold:
        _contradict("greedy", heat, "greedy draws nothing")
    if (greedy or cold) and cuts:
        _contradict("greedy" if greedy else heat, cuts[0], "the likeliest token is taken in any case")
    if greedy or cold or (default.greedy and not heat and not cuts):
        if n > 1:
            raise RequestError(
                f"n {n} and greedy contradict each other: all texts would be the same; give a temperature, or beams"
            )
        return replace(chosen, temperature=0.0), None
    defaults = {} if default.greedy else {name: getattr(default, name) for name in ("temperature", *CUTS)}
    return Sampling(**{**defaults, **given}), None


def _contradict(one: str, other: str, why: str) -> None:
    raise RequestError(f"{one} and {other} contradict each other: {why}; leave one out")
