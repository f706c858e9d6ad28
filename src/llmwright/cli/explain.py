"""What `llmwright generate --explain` prints: a `llmwright.engine.explain.Explanation` in 80 columns."""

from .names import Names, cut, fit, width

WIDTH = 80
BAR = 24
PROMPT_SHOWN = 12  # tokens at a long prompt's end, and half as many at its beginning


def show(loaded, prompt: str | list[int], sampling, *, steps: int, stop_tokens, json: bool) -> None:
    from ..engine.explain import explain

    found = explain(
        loaded.model, loaded.tokenizer, prompt, sampling=loaded.settings(sampling), steps=steps,
        stop_tokens=(*stop_tokens, *loaded.stop_tokens),
    )
    if json:
        from json import dumps

        print(dumps(_as_data(found), ensure_ascii=False))
    else:
        print("\n".join(_page(found, loaded, sampling)))


def _page(found, loaded, sampling) -> list[str]:
    names = Names(loaded.tokenizer)
    writes = loaded.kind == "encoder-decoder"
    lines = ["TEXT", *_indented(found.prompt), ""]
    lines += [f"TOKENS  {len(found.ids)} of them, each with its id", *_tokens(found.ids, names), ""]
    T, D = found.embedded.shape
    lines += [f"EMBEDDINGS  a vector of {D:,} numbers each, with its length", *_embeddings(found, names), ""]
    if writes:
        lines += [f"ENCODER  {len(found.encoder)} layers over the source; the mean over its places"]
        lines += [f"{'layer':>7}  {'length':>9}  is looked at"]
        for i, layer in enumerate(found.encoder, 1):
            lines.append(f"{i:>7}  {layer.length:>9,.2f}  {_looks(layer.looks, found.ids, names, WIDTH - 20)}")
        lines.append("")
    read = list(found.start or found.ids)
    for number, choice in enumerate(found.choices, 1):
        more = f"  token {number}" if len(found.choices) > 1 else ""
        lines += _layers(found, choice, read, names, writes, more) + [""]
        lines += _distribution(choice, names, sampling, loaded.tokenizer.vocab_size, more) + [""]
        token, own, drawn = choice.chosen
        how = "the likeliest" if sampling.greedy else f"drawn at {drawn:.3f} (model {own:.3f})"
        lines += [f"CHOICE{more}  {cut(names[token], 20)}, id {token}, {how}", ""]
        read.append(token)
    return [*lines, "TEXT", *_indented(found.text if writes else found.prompt + found.text)]


def _tokens(ids: list[int], names) -> list[str]:
    """All tokens of a short text, both ends of a long one."""
    shown = list(range(len(ids)))
    if len(ids) > PROMPT_SHOWN * 2:
        shown = [*shown[: PROMPT_SHOWN // 2], None, *shown[-PROMPT_SHOWN:]]
    return [f"{'…':>7}" if i is None else f"{i:>7}  {fit(names[ids[i]], 40)} {ids[i]:>8}" for i in shown]


def _embeddings(found, names) -> list[str]:
    lines = []
    for i in range(len(found.ids))[-3:]:
        vector = found.embedded[i]
        numbers = " ".join(f"{float(v):>8.3f}" for v in vector[:4])
        lines.append(f"{i:>7}  {fit(names[found.ids[i]], 18)} {numbers} …  {float(vector.norm()):>8,.2f}")
    return lines


def _layers(found, choice, read: list[int], names, writes: bool, more: str) -> list[str]:
    what = "DECODER" if writes else "LAYERS"
    lines = [f"{what}{more}  {len(choice.layers)} of them, at the last position: {cut(names[read[-1]], 20)}"]
    if writes:
        lines.append(f"{'layer':>7}  {'length':>9}  {'would say':<22} {'looks at the source':<22} at its text")
    else:
        lines.append(f"{'layer':>7}  {'length':>9}  {'would say':<22} looks at")
    for i, layer in enumerate(choice.layers, 1):
        token, p = layer.says[0]
        looks = _looks(layer.looks, read, names, WIDTH - 43)
        if writes:
            source = fit(_looks(layer.source_looks, found.ids, names, 22), 22)
            looks = f"{source} {_looks(layer.looks, read, names, 14)}"
        lines.append(f"{i:>7}  {layer.length:>9,.2f}  {fit(names[token], 16)} {p:.3f} {looks}")
    return lines


def _distribution(choice, names, sampling, vocab_size: int, more: str) -> list[str]:
    lines = [f"DISTRIBUTION{more}  over {vocab_size:,} tokens, the likeliest of them"]
    lines.append(f"  {'':<18} {'':<{BAR}} {'model':>7} {'to draw':>8}".rstrip())
    for token, own, drawn in choice.top:
        bar = "█" * round(BAR * own) or "▏"
        lines.append(f"  {fit(names[token], 18)} {bar:<{BAR}} {own:>7.4f} {drawn:>8.4f}")
    if choice.changed:
        lines.append(f"  penalties and biases changed {choice.changed:,} token{'s' * (choice.changed > 1)}")
    if sampling.greedy:
        lines.append("  greedy: only the likeliest")
    for stage in choice.cuts:
        value = f"{getattr(sampling, stage.name):g}"
        if stage.name == "temperature":
            change = "sharper" if sampling.temperature < 1 else "flatter" if sampling.temperature > 1 else "as it is"
            lines.append(f"  {'temperature ' + value:<18} {change}")
        else:
            kept = f"keeps {stage.kept:,} token{'s' * (stage.kept != 1)}"
            lines.append(f"  {stage.name + ' ' + value:<18} {kept}, removes {stage.removed:.1%} of the probability")
    return lines


def _looks(looks, ids: list[int], names, columns: int) -> str:
    """`place 'token' share` of the strongest, as many as fit; at least one."""
    text = ""
    for place, weight in looks:
        one = f"{place} {cut(names[ids[place]], 12)} {weight:.2f}"
        if text and width(f"{text}, {one}") > columns:
            break
        text = f"{text}, {one}" if text else one
    return text if width(text) <= columns else cut(text, columns)


def _indented(text: str) -> list[str]:
    from textwrap import wrap

    return [f"  {part}" for line in text.splitlines() or [""] for part in wrap(line, WIDTH - 2) or [""]]


def _as_data(found) -> dict:
    import dataclasses

    T, D = found.embedded.shape
    lengths = [round(float(v.norm()), 6) for v in found.embedded]
    data = dataclasses.asdict(dataclasses.replace(found, embedded=None))
    return {**data, "embedded": {"shape": [T, D], "lengths": lengths}}
