"""What `llmwright generate` prints for an encoder: the best tokens for each mask of the text."""

import dataclasses
import sys

from ..errors import RequestError


def fill(loaded, text: str, given: dict, *, json: bool) -> None:
    """`given`: the options of `generate` that were set, by name; none of them means anything here."""
    from ..engine.fill_mask import show

    foreign = [name for name, value in given.items() if value is not None and name not in ("seed", "greedy")]
    if foreign:
        options = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise RequestError(f"{loaded.path}: an encoder fills masks; leave out {options}, which is for writing a text")
    found = loaded.fill(text)
    if json:
        from json import dumps

        masks = [[dataclasses.asdict(filling) for filling in mask] for mask in found]
        print(dumps({"text": text, "masks": masks}, ensure_ascii=False))
        return
    sys.stdout.reconfigure(errors="replace")
    print(show(text, found))
