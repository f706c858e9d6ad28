"""Imports point one way (docs/design.md): cli → … → {engine, train} → {checkpoint, data} → {families, tokens} → model →
kernels."""

import ast
import subprocess
import sys
from pathlib import Path

import llmwright

ROOT = Path(llmwright.__file__).parent
BASE = {"errors", "progress", "recipe", "spin", "__version__", ""}  # what every part may use
ORDER = [
    {"kernels"}, {"model"}, {"families", "tokens"}, {"checkpoint", "data"}, {"engine", "train"}, {"plan"},
    {"serve", "tune", "evals", "rag", "quant", "inspect", "report"}, {"build"}, {"cli"}, {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imports(file: Path) -> set[str]:
    """The parts of the package that `file` imports, anywhere in it."""
    here = file.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parent = here[: len(here) - node.level]
            names = [node.module.split(".")] if node.module else [[alias.name] for alias in node.names]
            found |= {([*parent, *name] + [""])[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "llmwright":
            found |= {node.module.split(".")[1] if "." in node.module else alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("llmwright.")}
    return found


def test_every_import_points_down_or_stays():
    wrong, seen = [], 0
    for file in sorted(ROOT.rglob("*.py")):
        part = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if part == "__init__":
            continue  # the front door: it names everything and imports nothing until asked
        for other in imports(file) - BASE - {part}:
            seen += 1
            if part in BASE:
                wrong.append(f"{file.relative_to(ROOT)} imports {other}: errors, progress and recipe stand alone")
            elif part not in RANK or other not in RANK:
                wrong.append(f"{file.relative_to(ROOT)} imports {other}: no place in the order is known")
            elif RANK[other] >= RANK[part]:
                wrong.append(f"{file.relative_to(ROOT)} imports {other}: against the order")
    assert seen > 20 and not wrong, "\n".join(wrong)


def test_the_model_knows_nothing_of_files():
    for file in (ROOT / "model").glob("*.py"):
        names = {n.name.split(".")[0] for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import)
                 for n in node.names}
        assert not names & {"os", "pathlib", "json", "safetensors", "shutil"}, file.name


def test_importing_the_package_loads_nothing_heavy():
    heavy = "torch numpy tokenizers tiktoken pyarrow transformers sklearn plotly pydantic typer".split()
    code = f"import llmwright, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_front_door_has_what_it_names():
    for name in llmwright.__all__:
        assert getattr(llmwright, name) is not None
    assert "load" in dir(llmwright)
