"""docs/bench.md is true: its commands run, its options and their defaults are there."""

import re
import shlex
from pathlib import Path

import pytest

from llmwright.cli import run
from llmwright.serve.bench import Case

PAGE = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^ {4}(llmwright bench .+)$", PAGE, re.MULTILINE)]
QUICK = ["--streams", "1,2", "--prompt-tokens", "16", "--answer-tokens", "4", "--rounds", "1", "--long-tokens", "32",
         "--arrivals", "2", "--rate", "20"]


def test_a_server_that_runs_is_measured_as_shown(server, capsys):
    command = [word.replace("http://localhost:8000", server.url) for word in COMMANDS[1]]
    assert run([*command, *QUICK]) == 0
    out = " ".join(capsys.readouterr().out.split())
    shown = [line for line in PAGE.split("```")[1].splitlines() if re.match(r"^ *streams |^[a-z, ]+   ", line)]
    names = [" ".join(shown[0].split()), *(re.split("  +", line)[0] for line in shown[1:])]
    assert len(names) > 3 and all(name in out for name in names), names


@pytest.mark.slow
def test_a_model_is_measured_as_shown(small_model, capsys):
    command = [word.replace("smollm2-135m-instruct", str(small_model)) for word in COMMANDS[0]]
    assert run([*command, *QUICK, "--threads", "1", "--dtype", "float32"]) == 0
    assert "tokens/s" in capsys.readouterr().out


def test_the_options_and_their_defaults_are_there(capsys):
    assert run(["bench", "serve", "--help"]) == 0
    known, case = capsys.readouterr().out, Case()
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert option in known, option
    defaults = {"streams": "1,8,32", "prompt-tokens": case.prompt, "answer-tokens": case.answer, "rounds": case.rounds,
                "long-tokens": case.long, "arrivals": case.arrivals, "rate": case.rate, "seed": case.seed}
    assert case.streams == (1, 8, 32)
    for option, value in defaults.items():
        assert re.search(rf"--{option} <[^>]+>[^\[]*\[\s*default:\s+{value}[;\]]", known), option
    for option, value in re.findall(r"`--([a-z-]+) ([\d,.]+)`", PAGE):
        assert str(defaults[option]) == value or value == "0", option
