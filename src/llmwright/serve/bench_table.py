"""What `bench.measure` found, as a table for people."""

from rich import box
from rich.console import Console
from rich.table import Table


def show(found: dict, console: Console | None = None) -> None:
    """Print it to stdout."""
    console = console or Console(highlight=False)
    case = found["case"]
    lengths = f"prompts of {case['prompt']:,} tokens, answers of {case['answer']:,}"
    console.print(f"{found['model']} at {found['url']}: {lengths}, {case['rounds']} times; seed {case['seed']}", soft_wrap=True)
    if found["streams"]:
        console.print(_streams(found["streams"]))
    for line in lines(found):
        console.print(line, soft_wrap=True)


def _streams(rows: list[dict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = ("streams", "tokens/s", "while\nall write", "each", "first token\nP50/P95 ms", "between\nP50/P95 ms",
             "answer\nP50/P95 s", "failed")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            str(row["streams"]), number(row["tokens_per_second"]), number(row["decode_tokens_per_second"]),
            number(row["tokens_per_second_each"]), milliseconds(row["first_token"]), milliseconds(row["between_tokens"]),
            _two(row["latency"], 1, 1), str(row["failed"]),
        )
    return table


def lines(found: dict) -> list[str]:
    """What is no row of the table."""
    made = []
    if "prefill" in found:
        row = found["prefill"]
        made.append(f"prefill, cold     {row['tokens']:,} tokens: {number(row['tokens_per_second'])} tokens/s, first token "
                    f"{1000 * row['first_token']['p50']:,.0f} ms")
        row = found["prefix"]
        made.append(f"shared prefix     {row['tokens']:,} tokens: first token {1000 * row['cold']:,.0f} ms cold, "
                    f"{1000 * row['warm']:,.0f} ms the second time, {row['times_sooner']:.1f} times sooner")
    if "arrivals" in found:
        row = found["arrivals"]
        failed = f", {row['failed']} failed" if row["failed"] else ""
        made.append(
            f"random arrivals   {row['requests']} requests, {row['rate']:g} a second, mixed lengths: first token "
            f"{milliseconds(row['first_token'])} ms, between tokens {milliseconds(row['between_tokens'])} ms (P50 / P95), "
            f"{number(row['tokens_per_second'])} tokens/s{failed}")
    rows = [*found["streams"], *([found["arrivals"]] if "arrivals" in found else [])]
    made += list(dict.fromkeys(f"first failure     {row['error']}" for row in rows if "error" in row))
    if not found["fixed_lengths"]:
        made.append("answer lengths    this server does not know ignore_eos: answers may be shorter than asked for")
    if rows:
        made.append(f"this client       at most {max(row['client'] for row in rows):.1%} of one core")
    return made


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def milliseconds(spread: dict | None) -> str:
    return _two(spread, 1000, 0 if spread and spread["p50"] >= 0.1 else 1)


def _two(spread: dict | None, scale: float, digits: int) -> str:
    return "–" if spread is None else "/".join(f"{scale * spread[key]:,.{digits}f}" for key in ("p50", "p95"))
