"""What `bench.measure` found, as text for people."""

HEADS = (("", "streams"), ("", "tokens/s"), ("while", "all write"), ("", "each"), ("first token", "P50/P95 ms"),
         ("between", "P50/P95 ms"), ("answer", "P50/P95 s"), ("", "failed"))


def table(found: dict) -> str:
    """A row for each number of streams, and what is no row below."""
    case = found["case"]
    lengths = f"prompts of {case['prompt']:,} tokens, answers of {case['answer']:,}"
    made = [f"{found['model']} at {found['url']}: {lengths}, {case['rounds']} times, seed {case['seed']}", ""]
    if found["streams"]:
        made += [*_columns([*zip(*HEADS), *map(_row, found["streams"])]), ""]
    return "\n".join(made + lines(found))


def _row(row: dict) -> tuple[str, ...]:
    return (
        f"{row['streams']:,}", number(row["tokens_per_second"]), number(row["decode_tokens_per_second"]),
        number(row["tokens_per_second_each"]), milliseconds(row["first_token"]), milliseconds(row["between_tokens"]),
        _two(row["latency"], 1, 1), f"{row['failed']:,}",
    )


def _columns(rows: list) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def lines(found: dict) -> list[str]:
    """What is no row of the table."""
    made = []
    if "prefill" in found:
        row = found["prefill"]
        made.append(f"prefill, cold     {row['tokens']:,} tokens: {number(row['tokens_per_second'])} tokens/s, first "
                    f"token {1000 * row['first_token']['p50']:,.0f} ms" + (f", {row['failed']} failed" if row["failed"] else ""))
        row = found["prefix"]
        made.append(f"shared prefix     {row['tokens']:,} tokens: first token {1000 * row['cold']:,.0f} ms cold, "
                    f"{1000 * row['warm']:,.0f} ms the second time, {row['times_sooner']:.1f} times sooner")
    if "arrivals" in found:
        row = found["arrivals"]
        failed = f", {row['failed']} failed" if row["failed"] else ""
        made.append(
            f"random arrivals   {row['requests']} requests, {row['rate']:g} a second, mixed lengths: first token "
            f"{milliseconds(row['first_token'])} ms, between tokens {milliseconds(row['between_tokens'])} ms "
            f"(P50/P95), {number(row['tokens_per_second'])} tokens/s{failed}")
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
