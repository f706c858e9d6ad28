"""A plan as tables for people."""

from dataclasses import replace

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import flops, memory
from .devices import DEVICES
from .numbers import count, dollars, duration, size
from .plan import Plan, make_plan


def show(plan: Plan, console: Console | None = None) -> None:
    """Print `plan` to stdout."""
    console = console or Console(highlight=False)
    console.print(render(plan))


def render(plan: Plan) -> Group:
    """All of the plan's tables, in the order in which a person decides."""
    parts = [_title(plan), _parameters(plan), _memory(plan), *_fit(plan), _work(plan), _optimum(plan), _inference(plan),
             _attention(plan)]
    if not plan.measured:
        parts.append(_elsewhere(plan))
    parts.append(Text("\n".join(f"· {note}" for note in plan.notes), style="dim"))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
                  show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _title(plan: Plan) -> Text:
    s, phase = plan.shape, plan.run.largest
    layers = f"{s.n_encoder_layers} + {s.n_layers}" if s.n_encoder_layers else s.n_layers
    rows = f"{phase.context:,}" + (f" + {phase.target:,}" if phase.target else "")
    many = f"{plan.run.n_devices} × " if plan.run.n_devices > 1 else ""
    return Text.assemble(
        (plan.name, "bold"), f": {s.n_layers} layers, {s.d_model} wide, {s.n_heads} heads"
        + (f" ({s.n_kv_heads} key-value)" if s.n_kv_heads != s.n_heads else "") + f", vocabulary {s.vocab_size:,}"
        + (f", {s.active_experts} of {s.n_experts} experts a token" if s.n_experts > 1 else "") + "\n",
        f"trained with {plan.run.optimizer} in {plan.precision}, {phase.batch} × {rows} tokens a micro-batch"
        + (", activations recomputed" if plan.run.activation_checkpointing else ""), f", on {many}{plan.device.name}",
    )


def _parameters(plan: Plan) -> Table:
    p = plan.parameters
    table = _table("Parameters", "", "", "")
    for name, value in p.parts.items():
        if name == "head" and not value:
            table.add_row("head", "tied to the embedding", "")
        elif value:
            table.add_row(name.replace("_", "-"), f"{value:,}", f"{value / p.total:.1%}")
    table.add_row("total", f"{p.total:,}", count(p.total), style="bold")
    if p.active != p.total:
        table.add_row("active for a token", f"{p.active:,}", count(p.active))
    return table


def _memory(plan: Plan) -> Table:
    table = _table("Memory in training" + (", each device" if plan.run.n_devices > 1 else ""), "", "", "")
    for name, value in plan.memory.items():
        if value > 0:
            table.add_row(name, size(value), f"{value / plan.memory_total:.1%}")
        else:
            table.add_row(name, size(value), "", style="dim")
    table.add_row("peak", size(plan.memory_total), f"of {size(plan.device.memory)}", style="bold")
    s, phase, run = plan.shape, plan.run.largest, plan.run
    other = memory.activation_bytes(s, phase.batch, phase.context, plan.precision, not run.activation_checkpointing,
                                    run.packed, phase.target)
    table.add_row(f"activations with{'out' if run.activation_checkpointing else ''} checkpointing", size(other), "",
                  style="dim")
    return table


def _fit(plan: Plan) -> list:
    if plan.fits:
        return [Text("It fits.", style="green")]
    table = _table("It does not fit. What would make it fit:", "change", "memory", "")
    for remedy in plan.remedies:
        table.add_row(remedy.change, size(remedy.bytes), "fits" if remedy.fits else "not enough alone",
                      style=None if remedy.fits else "dim")
    return [table] if plan.remedies else [Text("It does not fit.", style="red")]


def _work(plan: Plan) -> Table:
    table = _table("Training", "", "")
    table.add_row("FLOPs a token", f"{plan.flops_per_token:.3g}")
    if plan.tokens is not None:
        table.add_row("tokens", count(plan.tokens))
        sizes = " to ".join(f"{n:,}" for n in sorted({min(plan.run.tokens_per_step), max(plan.run.tokens_per_step)}))
        table.add_row(f"steps of {sizes} tokens", f"{plan.steps:,.0f}")
        table.add_row("FLOPs", f"{plan.flops:.3g}")
        each = flops.per_parameter(plan.shape.kind)
        table.add_row(f"{each}·parameters·tokens", f"{plan.six_n_d:.3g}")
        table.add_row(f"petaFLOP/s-days (of {each}·N·D)", f"{plan.petaflops_days:,.4g}")
    table.add_row("tokens/s", f"{plan.tokens_per_second:,.0f}")
    if plan.seconds is not None:
        table.add_row("time", duration(plan.seconds), style="bold")
    if plan.cost is not None:
        table.add_row("cost", dollars(plan.cost), style="bold")
    return table


def _optimum(plan: Plan) -> Table:
    table = _table(f"Compute-optimal for {count(plan.parameters.active)} parameters", "by", "tokens", "a parameter",
                   "FLOPs", "petaFLOP/s-days")
    for o in plan.compute_optimal:
        table.add_row(o.rule, count(o.tokens), f"{o.tokens / o.params:.1f}", f"{o.flops:.3g}",
                      f"{flops.petaflops_days(o.flops):,.4g}")
    if plan.six_n_d is not None:
        from .scaling import optima

        best = optima(flops=plan.six_n_d)
        table.caption = f"For this plan's {flops.per_parameter(plan.shape.kind)}·N·D: " + "; ".join(
            f"{count(o.params)} parameters on {count(o.tokens)} tokens ({o.rule})" for o in best)
        table.caption_justify = "left"
    return table


def _inference(plan: Plan) -> Table:
    context = plan.run.largest.context
    table = _table(f"Memory in inference, one sequence of {context:,} tokens", "", "weights", "KV cache", "total",
                   "tokens/s, at most")
    for name, row in plan.inference.items():
        room = row["total"] <= plan.device.memory
        rate = row["tokens_per_second_at_most"]
        table.add_row(name, size(row["weights"]), size(row["kv cache"]), size(row["total"]),
                      ("—" if rate is None else f"{rate:,.0f}") if room else "does not fit",
                      style=None if room else "dim")
    return table


def _attention(plan: Plan) -> Text:
    s, n = plan.shape, plan.run.largest.context
    one = plan.attention_matrix
    every = memory.attention_matrix_bytes(n, s.n_heads, s.n_layers)
    return Text.assemble(
        ("The full attention matrix\n", "bold"),
        f"{n:,} tokens: {n:,}² × 4 bytes = {one / 2**20:,.2f} MiB for one head in one layer, {every / 2**30:,.2f} GiB for "
        "all. It is never built: fused attention goes\nthrough it in tiles and keeps one row's maximum and sum.",
    )


def _elsewhere(plan: Plan) -> Table:
    table = _table("On each device of the table" + (f", {plan.run.n_devices} of them" if plan.run.n_devices > 1 else ""),
                   "", "memory", "fits", "time", "cost")
    for device in DEVICES.values():
        other = make_plan(plan.shape, replace(plan.run, precision=plan.precision), device)
        table.add_row(device.name, size(device.memory), "yes" if other.fits else "no",
                      "—" if other.seconds is None else duration(other.seconds), dollars(other.cost))
    return table


def brief(plan: dict) -> str:
    """A plan (`Plan.to_dict()`) in a few lines, for a log."""
    parts = {k: v for k, v in plan["memory"].items() if k != "total" and v > 0}
    largest = ", ".join(f"{k} {size(v)}" for k, v in sorted(parts.items(), key=lambda item: -item[1])[:3])
    lines = [f"plan: {count(plan['parameters']['total'])} parameters in {plan['precision']} on {plan['device']}",
             f"  memory {size(plan['memory']['total'])} at the peak ({largest})"
             + ("" if plan["fits"] else f", more than fits in {size(plan['device_details']['memory'])}")]
    if plan["seconds"] is not None:
        a_parameter = plan["tokens"] / plan["parameters"]["total"]
        lines.append(f"  {count(plan['tokens'])} tokens in {plan['steps']:,.0f} steps at "
                     f"{plan['tokens_per_second']:,.0f} tokens/s: {duration(plan['seconds'])}; {plan['flops']:.3g} FLOPs, "
                     f"{a_parameter:.1f} tokens a parameter (compute-optimal: about 20)")
    for remedy in plan["remedies"]:
        if remedy["fits"]:
            lines.append(f"  would fit: {remedy['change']} ({size(remedy['bytes'])})")
    return "\n".join(lines)
