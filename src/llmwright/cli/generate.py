"""`llmwright generate MODEL PROMPT`"""

from typing import Annotated

import typer


def generate(
    model: Annotated[str, typer.Argument(
        help="A model directory, a run directory, a .gguf file or a pulled model.", metavar="MODEL")],
    prompt: Annotated[str, typer.Argument(
        help="The text to continue, or to translate; - reads it from stdin.", metavar="PROMPT")] = "",
    prompts: Annotated[str | None, typer.Option(
        help="A text for each line of a .txt file or {\"prompt\": …} of a .jsonl file (- for stdin), many at once.")] = None,
    output: Annotated[str | None, typer.Option(
        "--output", "-o", help="With --prompts: write the texts here, as .jsonl; else they go to stdout.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the most likely token.")] = False,
    temperature: Annotated[float | None, typer.Option(
        help="Below 1 sharper, above 1 wilder; 0 is greedy. Default: 0.8; greedy for an encoder-decoder.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k most likely tokens; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(
        help="Only the most likely tokens that reach p together; 1: all. Default: 0.95.")] = None,
    min_p: Annotated[float | None, typer.Option(
        help="Only tokens at least this share as likely as the likeliest.")] = None,
    typical: Annotated[float | None, typer.Option(
        help="Only the tokens nearest to the expected surprise that reach this together; 1: all.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(
        help="Above 1: what was read or written becomes less likely.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(
        help="Taken from the logit of each token already written.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(
        help="The same, once for each time it was written.")] = None,
    logit_bias: Annotated[list[str] | None, typer.Option(
        help="TOKEN=NUMBER is added to the token's logit; an id or its text; may be given several times.")] = None,
    bad_words: Annotated[list[str] | None, typer.Option(help="Never write this; may be given several times.")] = None,
    beams: Annotated[int | None, typer.Option(
        help="Search for the likeliest text with so many beams instead of drawing one.")] = None,
    length_penalty: Annotated[float | None, typer.Option(
        help="Of beams: above 0 favours long texts, below 0 short ones. Default: 1.")] = None,
    early_stopping: Annotated[str | None, typer.Option(
        help="Of beams: true, false or never (docs/generate.md). Default: false.")] = None,
    n: Annotated[int, typer.Option("--n", help="So many texts; with beams the n best.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="At most so many new tokens.")] = 128,
    min_tokens: Annotated[int | None, typer.Option(help="No end before so many tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    stop_token: Annotated[list[str] | None, typer.Option(
        help="End at this token, an id or its text; may be given several times.")] = None,
    window: Annotated[int | None, typer.Option(
        help="Hold only so many positions, the oldest go: text without an end.")] = None,
    sinks: Annotated[int | None, typer.Option(
        help="With --window: so many of the first tokens stay. Default: 4.")] = None,
    shots: Annotated[str | None, typer.Option(
        help="A file with an instruction and examples to put before the prompt (docs/generate.md).")] = None,
    n_shots: Annotated[int | None, typer.Option(help="Only so many of its examples; 0: none.")] = None,
    logprobs: Annotated[int | None, typer.Option(
        help="Show each token's probability and so many likelier ones.")] = None,
    chat: Annotated[bool, typer.Option(
        "--chat", help="The prompt is a question to a chat model: put it into the model's template.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: what the model is told before all else.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show each step from the text to the next token.")] = False,
    steps: Annotated[int | None, typer.Option(help="With --explain: so many tokens. Default: 1.")] = None,
    weights: Annotated[str | None, typer.Option(
        help="What a decoder holds its matrices in: float, int8 or int4: smaller is faster and less exact.")] = None,
    deterministic: Annotated[bool, typer.Option(
        "--deterministic", help="A decoder's text is the same to the bit, whatever else is written with it.")] = False,
    dtype: Annotated[str, typer.Option(
        help="What to compute in: float32, bfloat16, or auto, in which this machine writes faster.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Texts, token ids and log-probabilities as JSON.")] = False,
) -> None:
    """Continue a text, translate with an encoder-decoder, or fill the [MASK]s of a text with an encoder. A
    continuation is printed as it comes, after the prompt."""
    import secrets
    import sys

    from .. import spin
    from ..errors import RequestError
    from .describe import existing
    from .start import quickly

    if n < 1:
        raise RequestError(f"--n {n}: it must be at least 1")
    if steps is not None and not explain:
        raise RequestError("--steps are of --explain: give it too, or --max-tokens for the text's length")
    if steps is not None and steps < 1:
        raise RequestError(f"--steps {steps}: it must be at least 1")
    if n_shots is not None and shots is None:
        raise RequestError("--n-shots is of a file of examples: give --shots FILE too")
    for name, there in (("--n", n > 1), ("--beams", beams), ("--logprobs", logprobs is not None), ("--window", window), ("--stop", stop)):
        if explain and there:
            raise RequestError(f"--explain follows one text, token by token: leave {name} out")
    if sinks is not None and window is None:
        raise RequestError("--sinks are of a window: give --window too")
    if system is not None and not chat:
        raise RequestError("--system is for a chat model: give --chat too")
    if prompts is None and output is not None:
        raise RequestError("-o is of many prompts: give --prompts FILE too")
    for name, there in (("PROMPT", prompt), ("--explain", explain), ("--window", window)):
        if prompts is not None and there:
            raise RequestError(f"--prompts writes a text for each line of a file: leave {name} out")
    existing(model)  # before the seconds that PyTorch takes to load
    if weights or deterministic or prompts is not None:
        spin.little()

    with quickly():
        from ..engine import chat as chats, options, shots as tasks
        from ..engine.language_model import load
        from ..engine.sampler import GREEDY, Sampling
        from ..engine.window import Window
        from ..train.machine import pick_device

    drawn, seed = seed is None, secrets.randbits(31) if seed is None else seed
    given = dict(
        greedy=greedy or None, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical=typical,
        repetition_penalty=repetition_penalty, presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
        logit_bias=_bias(logit_bias), bad_words=bad_words, beams=beams, length_penalty=length_penalty,
        early_stopping={"true": True, "false": False}.get(early_stopping, early_stopping), min_tokens=min_tokens,
        seed=seed,
    )
    options.choose(given, n=n)  # mistakes before the model is loaded
    task = tasks.load(shots) if shots else None
    if prompts is not None:
        from . import prompts as many

        many.check_output(output)
        lines = many.read(prompts)
    if prompt == "-":
        prompt = sys.stdin.read()
    if task:
        prompt = task.prompt(prompt, n_shots) if prompts is None else prompt
        stop = stop or ([task.separator] if task.separator else [])
    with quickly():
        loaded = load(model, dtype=dtype, device=str(pick_device(device)), weights=weights, deterministic=deterministic)
    if loaded.kind == "encoder" and prompts is not None:
        raise RequestError(f"{loaded.path}: an encoder fills masks; leave out --prompts, which is for writing texts")
    if loaded.kind == "encoder":
        from .fill import fill

        others = dict(explain=explain or None, chat=chat or None, system=system, stop=stop, stop_token=stop_token, window=window,
                      n=n if n > 1 else None, logprobs=logprobs, shots=shots, sinks=sinks, steps=steps)
        fill(loaded, prompt, given | others, json=json)
        return
    writes = loaded.kind == "encoder-decoder"  # a text of its own, not the prompt's continuation
    default = GREEDY if writes else Sampling(temperature=0.8, top_p=0.95)
    stop, stop_tokens = stop or (), [int(t) if t.isdecimal() else t for t in stop_token or ()]
    template = chats.template(loaded) if chat else None
    stop_tokens += template.ends if chat else []

    def choose(others: dict) -> tuple:
        return chats.how(loaded, given | others, n) if chat else options.choose(given | others, default, n)

    def asked_in_chat(question: str, system: str | None) -> list[int]:
        before = [{"role": "system", "content": system}] if system is not None else []
        return template.encode([*before, {"role": "user", "content": question}], add_generation_prompt=True)

    if prompts is not None:
        def read(line: many.Line) -> str | list[int]:
            if not chat and "system" in line.given:
                raise RequestError("system is for a chat model: give --chat too")
            text = task.prompt(line.prompt, n_shots) if task else line.prompt
            return asked_in_chat(text, line.given.get("system", system)) if chat else text

        def record(line: many.Line, result) -> dict:
            found = _as_data(loaded.tokenizer, result)
            if logprobs is None and not json:
                found = {name: value for name, value in found.items() if name not in ("ids", "log_probs")}
            named = {"id": line.given["id"]} if "id" in line.given else {}
            told = {"seed": line.given.get("seed", seed)} if json and result.score is None else {}
            return {**named, **told, **found, "prompt": line.prompt}

        wish = many.Wish(choose, read, max_tokens, n, stop, stop_tokens, logprobs or 0)
        many.answer(loaded, lines, wish, output, record)
        return
    if chat:
        prompt = asked_in_chat(prompt, system)
    sampling, search = choose({})
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    if explain:
        from .explain import show

        show(loaded, prompt, sampling, steps=min(steps or 1, max_tokens), stop_tokens=stop_tokens, json=json)
        return
    asked = dict(max_tokens=max_tokens, n=n, sampling=sampling, beams=search, stop=stop, stop_tokens=stop_tokens,
                 window=Window(window, 4 if sinks is None else sinks) if window is not None else None,
                 top_log_probs=logprobs or 0)
    if json:
        from json import dumps

        results = [_as_data(loaded.tokenizer, r) for r in loaded.run([prompt], **asked)]
        unused = drawn and (sampling.greedy or search is not None)  # no seed made this text
        print(dumps({"seed": None if unused else seed, "generations": results}, ensure_ascii=False))
        return
    before = "" if writes or task or chat else prompt
    if n == 1 and not task:
        # nothing is printed of a request that turns out wrong
        begun = []
        results = loaded.run(
            [prompt], **asked, on_text=lambda i, text: _show(text if begun else begun.append(1) or before + text)
        )
        _show("\n" if begun else f"{before}\n")
    else:
        results = loaded.run([prompt], **asked)
        for number, result in enumerate(results, 1):
            score = "" if result.score is None else f"  (score {result.score:.3f})"
            text = result.text.strip() if task else before + result.text
            _show((f"--- {number}{score}\n" if n > 1 else "") + f"{text}\n")
    if logprobs is not None:
        for result in results:
            _show(_probabilities(loaded.tokenizer, result))


def _show(text: str) -> None:
    import sys

    sys.stdout.write(text)
    sys.stdout.flush()


def _bias(entries: list[str] | None) -> dict | None:
    """TOKEN=NUMBER, several, as {token: number}. The token may hold a = itself."""
    from ..errors import RequestError

    found = {}
    for entry in entries or ():
        token, equals, number = entry.rpartition("=")
        try:
            found[int(token) if token.isdecimal() else token] = float(number)
        except ValueError:
            equals = ""
        if not equals or not token:
            raise RequestError(f"--logit-bias {entry!r}: it must be TOKEN=NUMBER, for example ' the=-5' or 262=2.5")
    return found or None


def _as_data(tokenizer, result) -> dict:
    import dataclasses

    def decoded(i: int) -> str:
        return tokenizer.token_bytes(i).decode("utf-8", "replace")

    data = dataclasses.asdict(result)
    for name in ("prompt_log_probs", "prompt_top_log_probs"):  # of the server's `echo`
        if not data.get(name):
            data.pop(name, None)
    if result.score is None:
        del data["score"]
    if result.top_log_probs:
        data["top_log_probs"] = [
            [{"id": i, "token": decoded(i), "log_prob": value} for i, value in place]
            for place in result.top_log_probs
        ]
    else:
        del data["top_log_probs"]
    return data


def _probabilities(tokenizer, result) -> str:
    """A line for each token: how likely it was, and what was likelier or next."""
    from math import exp

    from .names import Names, fit

    names = Names(tokenizer)
    lines = ["", f"{'token':<18} {'p':>7}  {'likeliest' if result.top_log_probs else ''}".rstrip()]
    for place, (i, log_prob) in enumerate(zip(result.ids, result.log_probs)):
        others = result.top_log_probs[place] if result.top_log_probs else []
        shown = "  ".join(f"{names[j]} {exp(value):.3f}" for j, value in others)
        lines.append(f"{fit(names[i], 18)} {exp(log_prob):>7.4f}  {shown}".rstrip())
    return "\n".join(lines) + "\n"
