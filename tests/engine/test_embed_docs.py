"""The commands and the Python of docs/embed.md, as a reader would run them."""

import re
import shlex
from pathlib import Path

import pytest
from test_fill_mask import bert  # noqa: F401  a fixture

from llmwright.cli import run

PAGE = (Path(__file__).parents[2] / "docs" / "embed.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}(llmwright .+)$", PAGE, re.M)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.network
@pytest.mark.parametrize("command", COMMANDS)
def test_a_shown_command_works(command, minilm, bert, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("".join(f"Note {i} is about {word}.\n" for i, word in enumerate(PAGE.split()[:40])))
    words = shlex.split(command.replace("BERT", bert).replace("all-minilm-l6-v2", str(minilm)))[1:]
    assert run(words) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out.strip() or Path("vectors.npy").exists()


@pytest.mark.network
def test_the_shown_python_works(minilm, bert, capsys):  # noqa: F811
    import llmwright as lw

    embeds, fills = PYTHON
    place = {}
    exec(embeds.replace("all-minilm-l6-v2", str(minilm)), place)
    assert place["vectors"].shape == (2, 384) and place["vector"].shape == (384,)
    exec(fills, {"model": lw.load(bert)})
    assert len(capsys.readouterr().out.splitlines()) == 5
