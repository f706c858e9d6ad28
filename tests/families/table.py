"""What the tests of the families found, family by check, as the page docs/families.md.

A test file says once what its family is, and each of its tests what it measured:

    describe("bloom", "BLOOM", "Le Scao et al. 2022", "decoder; ALiBi; LayerNorm, one on the embeddings; GELU")
    record("bloom", "logits", (ours - theirs).abs().max())     # a largest difference
    record("bloom", "greedy text")                             # a check that is equal or is not

`test_families_page.py` runs after all of them and holds the page against the records. LLMWRIGHT_WRITE_DOCS=1 writes
what ran into the page; rows that did not run stay as they are.
"""

import math
import os
import re
from pathlib import Path

from llmwright import recipe
from llmwright.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
LEAST = 1e-6  # differences below are not told apart: they are rounding, and another machine has others

CHECKS = {  # in the order of the page's columns
    "logits": "logits of a whole context, unpadded",
    "padded": "logits of rows of unequal length (decoders: padded on the left, the others on the right)",
    "cache": "logits with a cache that is filled in uneven steps",
    "vectors": "states, pooled states or sentence vectors of an encoder",
    "greedy text": "the same tokens from their `generate` as from our engine",
    "gradients": "the gradient of the loss, relative to its largest entry",
    "saved": "logits of the directory that we wrote, loaded there",
    "GGUF": "logits of the float32 GGUF file that we wrote, read back",
    "llama.cpp": "the same greedy tokens from llama.cpp, given that file",
    "config": "`config.json` through our configuration and back: equal in every field that changes the computation",
    "trains": "a new model of a recipe learns a batch; logits of what it saves, loaded there",
    "real weights": "published weights, not random ones",
}

NOTES = """\
## In a recipe

`model.family` takes the names above (`gemma3` for Gemma 3's text models). Settings that only some families have:

{settings}

Another family that is given one refuses it, with the reason. Unset, each has its family's own (`families/shapes.py`).

## What else to know

- **Context.** `config.json` gives a scaled context in two ways: beside linear scaling and Llama 3's it is the new one, beside
  YaRN and dynamic scaling that of the training, and the new one is this times the factor.
- **Dynamic scaling** turns all rows of a batch by the length of its longest, and keys in a cache stay as they were turned,
  as in transformers: a text then depends on its neighbours and on the steps in which it was read.
- **Mixtral's balance loss** is computed for each layer and averaged, as in the paper it comes from (Fedus, Zoph & Shazeer
  2022); transformers counts all layers as one, so that one layer's favourite expert can make up for another's. With one layer
  the two are equal. The z-loss's weight is in `router_z_loss_coef`, a key of our own.
- **Gemma's norms** are stored minus 1, which rounds them at 1: a weight may come back 6e-8 from what it was.
- **Gemma 3 with pictures** (`model_type: gemma3`) is refused; its text models are `gemma3_text`.
- **Quantized weights** (`quantization_config`) are refused by name, and so is what a family does not have, such as
  `use_bidirectional_attention` or the rope scaling `longrope`."""

_described: dict[str, tuple[str, str, str]] = {}
_records: dict[str, dict[str, float]] = {}


def describe(model_type: str, name: str, paper: str, parts: str) -> None:
    """Once a family. `parts`: what it is composed of, separated by semicolons."""
    _known(model_type)
    _described[model_type] = (name, paper, parts)


def record(model_type: str, check: str, difference: float | None = None) -> None:
    """A check of a family that passed. Of several, the largest difference counts."""
    _known(model_type)
    if check not in CHECKS:
        raise ValueError(f"no check {check!r}; there are {', '.join(CHECKS)}")
    value = 0.0 if difference is None else float(difference)
    assert math.isfinite(value), (model_type, check)
    found = _records.setdefault(model_type, {})
    found[check] = max(value, found.get(check, 0.0))


def compare(where: Path = PAGE) -> list[str]:
    """What the page lacks or says otherwise, one line each; with LLMWRIGHT_WRITE_DOCS=1 the page is made right first."""
    described, cells = _read(where)
    if os.environ.get("LLMWRIGHT_WRITE_DOCS") == "1":
        described |= _described
        for family, checks in _records.items():
            cells[family] = cells.get(family, {}) | {check: _cell(value) for check, value in checks.items()}
        where.write_text(_page(described, cells), encoding="utf-8")
    nameless = [family for family in _records if family not in described]  # its own tests say what it is
    problems = [f"{family}: not described; call table.describe" for family in nameless if _records[family].keys() - {"trains"}]
    problems += [f"{family}: the page describes it otherwise" for family, words in _described.items()
                 if family in described and described[family] != words]
    for family, checks in _records.items():
        for check, value in checks.items() if family in described else ():
            said = cells.get(family, {}).get(check)
            if said is None:
                problems.append(f"{family}: the page has no {check!r}")
            elif _power(value) > 10 * _number(said):  # one power is what machines differ by
                problems.append(f"{family}, {check}: the page says {said}; measured {value:.1e}")
    return problems


def _known(model_type: str) -> None:
    if model_type not in FAMILIES:
        raise ValueError(f"no family {model_type!r} in families.FAMILIES")


def _power(value: float) -> float:
    """`value` rounded up to a power of ten; 0 stays."""
    return 10.0 ** math.ceil(math.log10(max(value, LEAST)) - 1e-9) if value else 0.0


def _cell(value: float) -> str:
    return f"{_power(value):.0e}".replace("e-0", "e-") if value else "same"


def _number(cell: str) -> float:
    return LEAST if cell == "same" else float(cell)


def _page(described: dict[str, tuple[str, str, str]], cells: dict[str, dict[str, str]]) -> str:
    order = [family for family in FAMILIES if family in described]
    checks = [check for check in CHECKS if any(check in row for row in cells.values())]
    lines = [
        "# Families", "",
        "Published architectures that llmwright reads, trains and writes. `config.json` names one by its `model_type`.", "",
        "| model_type | family | paper | parts |", "|---|---|---|---|",
        *(f"| `{family}` | {' | '.join(described[family])} |" for family in order), "",
        "## Parity", "",
        "Made by the tests of `tests/families` (`LLMWRIGHT_WRITE_DOCS=1 pytest tests/families`): small random models",
        "in float32, against the transformers library; for a family that it has not, against the paper's equations.",
        "A number is the largest difference found, rounded up to a power of ten (1e-6 at least); all are below 1e-4.",
        "*same*: equal in full. An empty cell: the check is not one for this kind of model (GGUF: `export` refuses the family).", "",
        *(f"- **{check}**: {CHECKS[check]}" for check in checks), "",
        f"| | {' | '.join(checks)} |", "|---" * (len(checks) + 1) + "|",
        *(f"| `{family}` | {' | '.join(cells.get(family, {}).get(check, '') for check in checks)} |" for family in order),
        "", NOTES.format(settings=_settings()),
    ]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    """The settings of recipes that not all families have, those with the same families in one line."""
    alike: dict[str, list[str]] = {}
    for name, (families, _) in recipe.OWN.items():
        alike.setdefault(families, []).append(f"`{name}`")
    return "\n".join(f"- {', '.join(names)}: {', '.join(families.split())}" for families, names in alike.items())


def _read(where: Path) -> tuple[dict[str, tuple[str, str, str]], dict[str, dict[str, str]]]:
    """The page's two tables: family → words, and family → check → cell."""
    described, cells, checks = {}, {}, []
    for line in where.read_text(encoding="utf-8").splitlines() if where.exists() else []:
        columns = [column.strip() for column in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if line.startswith("| |"):
            checks = columns[1:]
        elif (name := re.fullmatch(r"`([\w-]+)`", columns[0] if columns else "")) and checks:
            cells[name[1]] = {check: cell for check, cell in zip(checks, columns[1:]) if cell}
        elif name and len(columns) == 4:
            described[name[1]] = tuple(columns[1:])
    return described, cells
