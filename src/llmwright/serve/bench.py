"""What a server is worth: tokens a second and how long people wait, at several streams, for a long prompt, for a prompt
whose beginning was read before, and for requests that come at random.

Prompts are random common words, seeded, each prompt a new one, so that nothing of it is in a prefix cache unless that
is what is measured. Answers are greedy and, where the server knows `ignore_eos`, of exactly the length asked for.
Tokens are counted as the server says (`usage`), not by pieces: a piece may hold several.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

from ..errors import RequestError, WorkError
from .load import Answer, Run, Target, message, run

WORDS = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information back parent face
others level office door health person art war history party result change morning reason research girl guy moment air
teacher force education foot boy age policy music market sense nation plan college interest death experience effect
use class control field development role effort rate heart drug show leader light voice wife whole police mind price
report decision son view relationship town road arm difference value building action season society tax director
position player record paper space ground form event official matter center couple site project base land figure data
film type
""".split()
AGAIN = 3  # times that a request which has to be answered is asked again
ENDLESS = {"ignore_eos": True}  # asks for answers of a fixed length, as vLLM knows it
COUNTED = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Case:
    """How much is asked. `streams`: at once, one row each; `prompt` and `answer`: tokens; `rounds`: repetitions of a
    row; `long`: tokens of the prompt that is read for prefill, and of the shared prefix; `arrivals`: requests that come
    at random, `rate` of them a second."""

    streams: tuple[int, ...] = (1, 8, 32)
    prompt: int = 128
    answer: int = 128
    rounds: int = 3
    long: int = 500
    arrivals: int = 64
    rate: float = 2.0
    seed: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.rounds * (sum(self.streams) + 3 * bool(self.long)) + self.arrivals


class Asker:
    """Requests for one server.

    model: as the server calls it; by default the first of its models. Raises RequestError or WorkError where it does
    not answer.
    """

    def __init__(self, target: Target, model: str | None = None, seed: int = 0):
        self.target, self.rng = target, random.Random(seed)
        status, found = target.ask("GET", "/v1/models", seconds=30)
        data = found.get("data")
        models = [each for each in data if isinstance(each, dict) and isinstance(each.get("id"), str)] if isinstance(data, list) else []
        if status in (401, 403):
            raise RequestError(f"{target.url}: {said(status, found)}; --api-key gives a key")
        if model is None and not models:
            what = said(status, found)
            raise RequestError(f"{target.url}: there is no server of OpenAI's API ({what} at /v1/models)")
        self.model = model if model is not None else models[0]["id"]
        context = next((each.get("max_model_len") for each in models if each["id"] == self.model), None)
        self.context = context if type(context) is int and context > 0 else None
        self.extra: dict = {}
        self.ids = self._ids()
        self._learn()

    def _ids(self) -> list[int]:
        """Tokens of common words; none where the server does not tell."""
        text = " ".join(WORDS)
        try:
            status, found = self.target.ask("POST", "/tokenize", {
                "model": self.model, "prompt": text, "add_special_tokens": False}, seconds=30)
        except WorkError:
            return []
        ids = found.get("tokens") if status == 200 else None
        return sorted({i for i in ids if isinstance(i, int)}) if isinstance(ids, list) else []

    def _learn(self) -> None:
        """Which of the parameters that this asks for the server takes; it is warm after that."""
        for extra in ({**ENDLESS, **COUNTED}, COUNTED, {}):
            self.extra = extra
            answer = run(self.target, [(0.0, self.body(16, 8))]).answers[0]
            if not answer.error or answer.status not in (400, 422):
                break
        if answer.error:
            wrong = RequestError if 400 <= answer.status < 500 and answer.status != 429 else WorkError
            raise wrong(f"{self.target.url}: {self.model} gave no answer ({answer.error})")

    @property
    def fixed(self) -> bool:
        """Whether answers are of exactly the length asked for."""
        return "ignore_eos" in self.extra

    def body(self, prompt: int | list, answer: int) -> dict:
        """A request. `prompt`: so many tokens of random words, or what `words` gave."""
        words = self.words(prompt) if isinstance(prompt, int) else prompt
        return {"model": self.model, "prompt": words if self.ids else " ".join(words), "max_tokens": answer,
                "temperature": 0, "stream": True, **self.extra}

    def words(self, n: int) -> list:
        """`n` random tokens; where the server does not tell its tokens, as many words, of which most are one."""
        return self.rng.choices(self.ids or WORDS, k=n)

    def run(self, batches, done: Callable[[], None]) -> list[Run]:
        """Each batch of requests after the one before. Raises RequestError or WorkError where every request failed."""
        runs = [run(self.target, asks, done) for asks in batches]
        answers = [answer for each in runs for answer in each.answers]
        if all(answer.error for answer in answers):
            first = answers[0]
            wrong = RequestError if 400 <= first.status < 500 and first.status != 429 else WorkError
            raise wrong(f"{self.target.url}: all {len(answers)} requests failed: {first.error}")
        return runs

    def one(self, body: dict, done: Callable[[], None]) -> tuple[Answer, int]:
        """The answer to a request that is asked for again where it fails, and how often it failed. Raises as `run`."""
        failed = 0
        while (answer := run(self.target, [(0.0, body)]).answers[0]).error and failed < AGAIN:
            failed += 1
        if answer.error:
            raise WorkError(f"{self.target.url}: a request failed {failed + 1} times: {answer.error}")
        done()
        return answer, failed


def measure(asker: Asker, case: Case, done: Callable[[], None] = lambda: None) -> dict:
    """All of it. `done()` is called after each of `case.requests` answers."""
    if not (case.streams or case.long or case.arrivals):
        raise RequestError("nothing is left to measure: give --streams, --long-tokens or --arrivals")
    longest = max(case.prompt + case.answer if case.streams else 0, case.long + 17 if case.long else 0)
    if asker.context and longest > asker.context:
        raise RequestError(f"{asker.model} has a context of {asker.context:,} tokens, and this takes {longest:,}: ask "
                           "for shorter prompts or answers")
    found: dict = {"url": asker.target.url, "model": asker.model, "case": asdict(case), "fixed_lengths": asker.fixed}
    found["streams"] = [streams(asker, n, case, done) for n in case.streams]
    if case.long:
        found["prefill"] = prefill(asker, case, done)
        found["prefix"] = prefix(asker, case, done)
    if case.arrivals:
        found["arrivals"] = arrivals(asker, case, done)
    return found


def streams(asker: Asker, n: int, case: Case, done: Callable[[], None] = lambda: None) -> dict:
    """`n` requests that begin together, `case.rounds` times."""
    asks = ([(0.0, asker.body(case.prompt, case.answer)) for _ in range(n)] for _ in range(case.rounds))
    runs = asker.run(asks, done)
    return {"streams": n, **summary(runs), "decode_tokens_per_second": decode_rate(runs)}


def prefill(asker: Asker, case: Case, done: Callable[[], None] = lambda: None) -> dict:
    """A prompt of `case.long` tokens that was never seen, and one token of an answer: tokens read until it came."""
    answers, failed = zip(*(asker.one(asker.body(case.long, 1), done) for _ in range(case.rounds)))
    rates = [(each.prompt_tokens or case.long) / each.first for each in answers]
    return {"tokens": case.long, "tokens_per_second": median(rates), "first_token": spread([a.first for a in answers]),
            "failed": sum(failed)}


def prefix(asker: Asker, case: Case, done: Callable[[], None] = lambda: None) -> dict:
    """Two prompts that begin with the same `case.long` tokens and go on with 16 of their own: the time to the first
    token of the first, and of the second."""
    cold, warm, cached = [], [], []
    for _ in range(case.rounds):
        begin = asker.words(case.long)
        for times in (cold, warm):
            answer, _ = asker.one(asker.body(begin + asker.words(16), 1), done)
            times.append(answer.first)
        cached.append(answer.cached)
    first, second = median(cold), median(warm)
    return {"tokens": case.long, "cold": first, "warm": second, "times_sooner": first / second,
            "cached_tokens": median(cached)}


def arrivals(asker: Asker, case: Case, done: Callable[[], None] = lambda: None) -> dict:
    """Requests that come at random, whether those before are answered or not; for every server of one seed the same."""
    asks = [(at, asker.body(prompt, answer)) for at, prompt, answer in schedule(case, asker.context)]
    return {"requests": case.arrivals, "rate": case.rate, **summary(asker.run([asks], done))}


def schedule(case: Case, context: int | None = None) -> list[tuple[float, int, int]]:
    """(when, tokens of the prompt, of the answer) of each arrival: a Poisson process, prompts of 32 to 512 tokens and
    answers of 16 to 256, less where the context is small."""
    rng, at, made = random.Random(case.seed), 0.0, []
    most = context or 8192
    for _ in range(case.arrivals):
        at += rng.expovariate(case.rate)
        made.append((at, min(rng.randint(32, 512), most // 2), min(rng.randint(16, 256), most // 4)))
    return made


def summary(runs: list[Run]) -> dict:
    """Figures of some runs of one kind together. Times in seconds."""
    answers = [answer for r in runs for answer in r.answers]
    good = [answer for answer in answers if not answer.error]
    tokens, seconds = sum(answer.tokens for answer in good), sum(r.seconds for r in runs)
    rates = [answer.rate for answer in good if answer.rate]
    errors = [answer.error for answer in answers if answer.error]
    return {
        "requests": len(answers), "failed": len(errors), **({"error": errors[0]} if errors else {}),
        "prompt_tokens": sum(answer.prompt_tokens for answer in good), "tokens": tokens, "seconds": seconds,
        "tokens_per_second": tokens / seconds, "tokens_per_second_each": median(rates) if rates else None,
        "first_token": spread([answer.first for answer in good]),
        "between_tokens": spread([gap for answer in good for gap in answer.gaps]),
        "latency": spread([answer.latency for answer in good]),
        "client": sum(r.cpu for r in runs) / seconds,
    }


def decode_rate(runs: list[Run]) -> float | None:
    """Tokens a second while all streams of a run write: after the last one's first token, until the first one's last.
    None where that is no time at all."""
    tokens = seconds = 0.0
    for r in runs:
        good: list[Answer] = [answer for answer in r.answers if not answer.error]
        if not good:
            continue
        begin, end = max(a.times[0] for a in good), min(a.times[-1] for a in good)
        if end > begin:
            tokens += sum(a.tokens_between(begin, end) for a in good)
            seconds += end - begin
    return tokens / seconds if seconds else None


def spread(values: list[float]) -> dict | None:
    return {"p50": percentile(values, 50), "p95": percentile(values, 95)} if values else None


def percentile(values: list[float], q: float) -> float:
    """The value below which `q` per cent of `values` lie, between two of them in proportion, as numpy's."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def said(status: int, found: dict) -> str:
    return f"{status}: {message(json.dumps(found).encode())}" if found else str(status)
