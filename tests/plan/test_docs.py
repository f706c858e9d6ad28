"""The commands and figures of docs/plan.md are true."""

import re
from pathlib import Path

import pytest

from llmwright.plan import memory, scaling
from llmwright.plan.presets import preset

from .test_command import ask

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^llmwright plan (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_plans(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = command.split()
    if words[0].endswith(".yaml") and not Path(words[0]).exists():
        pytest.skip(f"there is no {words[0]}")
    assert "parameters" in ask(*words).lower()


def test_figures():
    gpt2 = preset("gpt2")
    assert len(COMMANDS) == 9
    assert memory.block_activation_bytes(gpt2, "bfloat16", 1024) == 24_640
    assert memory.activation_bytes(gpt2, 8, 1024, "bfloat16") == pytest.approx(2.4e9, rel=0.03)
    assert memory.activation_bytes(gpt2, 8, 1024, "bfloat16", True) == pytest.approx(0.4e9, rel=0.1)
    assert scaling.HOFFMANN.tokens_for(70e9) == pytest.approx(7.7e12, rel=0.01)
    assert scaling.BESIROGLU.tokens_for(70e9) == pytest.approx(1.3e12, rel=0.01)
