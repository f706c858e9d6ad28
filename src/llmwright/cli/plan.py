"""`llmwright plan`: what a model takes, before anything is spent."""

from dataclasses import replace
from typing import Annotated

import typer

HELP = """What a model takes, before anything is spent: parameters, memory, FLOPs, time, cost, the tokens it should see.

TARGET is a recipe, a model directory, a GGUF file, a pulled model, or one of these published models, pulled or not:
gpt2, gpt2-medium, gpt2-large, gpt2-xl, gpt3-175b, chinchilla-70b, llama-3-8b, llama-3-70b, llama-3.2-1b-instruct,
falcon-7b-instruct, falcon-180b, mistral-7b-instruct, mixtral-8x7b-instruct, mixtral-8x22b, smollm2-135m,
smollm2-135m-instruct, smollm2-360m-instruct, smollm2-1.7b-instruct, qwen2.5-0.5b-instruct, qwen3-0.6b,
gemma-3-270m-it, bloom-560m, bert-base-uncased, bert-large-uncased, roberta-base, roberta-large, all-minilm-l6-v2,
t5-small, t5-base, t5-large, t5-3b, t5-11b, flan-t5-small, flan-t5-base, flan-t5-large, flan-t5-xl, flan-t5-xxl.
Without one, give --params, --tokens, --flops or --days, and the rest follows. Numbers may be written 125M, 7B, 1.4T,
3e23.
"""


def plan(
    target: Annotated[str | None, typer.Argument(help="A recipe, a model directory or a published model.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, for a recipe.")] = None,
    params: Annotated[str | None, typer.Option(help="Parameters, instead of a target.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens to train on.")] = None,
    flops: Annotated[str | None, typer.Option(help="A compute budget in FLOPs.")] = None,
    days: Annotated[str | None, typer.Option(help="A time budget on the device.")] = None,
    device: Annotated[str | None, typer.Option(
        help="this (measured), cpu-2-cores, 24gb, rtx-3090, rtx-4090, l4, a100, a100-40gb, h100, h200, b200, mi300x. "
             "Default: this for a recipe, else h100.")] = None,
    n_devices: Annotated[int | None, typer.Option(help="Devices that share the weights and the work.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows a micro-batch, on each device.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a row.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or auto.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, muon or adamw8bit.")] = None,
    activation_checkpointing: Annotated[bool | None, typer.Option(
        help="Recompute activations instead of keeping them.")] = None,
    price: Annotated[float | None, typer.Option(help="US dollars an hour for a device.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole plan for a machine.")] = False,
) -> None:
    from ..errors import RequestError
    from ..plan import numbers, targets
    from ..plan.devices import device as find_device, priced
    from ..plan.plan import make_plan

    if target and "=" in target:
        raise RequestError(f"{target}: an override needs its recipe before it: llmwright plan RECIPE {target}")
    if target and params:
        raise RequestError(f"--params {params}: {target} already says how many parameters; give one of them")
    if target and flops:
        raise RequestError(f"--flops {flops}: not together with a target; --tokens or --days bound its training")
    if not (target or params or tokens or flops or days):
        raise RequestError("nothing to plan: give a recipe, a model directory, a published model such as gpt2, or one "
                           "of --params, --tokens, --flops and --days")
    for name, value in (("--batch", batch), ("--context", context), ("--n-devices", n_devices)):
        if value is not None and not 1 <= value <= 10**8:
            raise RequestError(f"{name} {value}: it must be from 1 to 100,000,000")
    if price is not None and not 0 <= price <= 1e6:
        raise RequestError(f"--price {price:g}: it must be from 0 to 1,000,000 dollars an hour")
    for name, value, allowed in (("--precision", precision, ("auto", "float32", "bfloat16")),
                                 ("--optimizer", optimizer, ("adamw", "muon", "adamw8bit"))):
        if value is not None and value not in allowed:
            raise RequestError(f"{name} {value}: it must be one of {', '.join(allowed)}")
    n_params, n_tokens = numbers.maybe(params, "--params", 1e18), numbers.maybe(tokens, "--tokens", 1e18)
    budget, time = numbers.maybe(flops, "--flops"), numbers.maybe(days, "--days", 1e9)

    found = targets.read(target, overrides or []) if target else None
    on_this = device in ("this", "this-machine") or (device is None and found is not None and found.run is not None)
    where = priced(find_device("this" if on_this else device or "h100"), price)

    if found is None:
        if not (n_params or n_tokens or budget):  # a time on a device is a compute budget
            budget = time * 86_400 * where.rate(precision if precision == "float32" else "bfloat16") * (n_devices or 1)
        shape, n_tokens, notes = targets.from_numbers(n_params, n_tokens, budget, context)
        found = targets.Target(shape, notes=tuple(notes))
    notes, run = found.notes, found.run
    if run is None:
        run, assumed = targets.default_run(found.shape, n_tokens)
        notes = (*notes, *assumed)
    phases = tuple(phase.of(context, batch) for phase in run.phases)
    given = {"precision": precision, "optimizer": optimizer, "activation_checkpointing": activation_checkpointing,
             "n_devices": n_devices, "tokens": n_tokens, "seconds": time and time * 86_400}
    if n_tokens:
        run = replace(run, steps=None)
    run = replace(run, phases=phases, **{k: v for k, v in given.items() if v is not None})

    if on_this and found.recipe and run.n_devices == 1 and run.optimizer == found.recipe.train.optimizer.name:
        from ..plan.measure import plan_here

        result = plan_here(found.config, found.recipe, run=run)
        result = replace(result, name=found.shape.name)
    else:
        result = make_plan(found.shape, run, where)
    result = replace(result, notes=(*notes, *result.notes))
    if json:
        from json import dumps

        print(dumps(result.to_dict(), indent=2))
    else:
        from ..plan.show import show

        show(result)


plan.__doc__ = HELP
