"""`llmwright generate`: the text on stdout, nothing else there; what is wrong in one line and exit code 2."""

import json
import subprocess
import sys

import pytest
from small import model, tokenizer

from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.generate import generate
from llmwright.engine.sampler import GREEDY, Sampling


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    directory.save(model(), path, tokenizer=tokenizer())
    return str(path)


def test_the_prompt_and_its_text_are_printed(model_dir, capsys):
    assert run(["generate", model_dir, "import os", "--greedy", "--max-tokens", "12"]) == 0
    out, err = capsys.readouterr()
    text = generate(model(), tokenizer(), "import os", max_tokens=12, sampling=GREEDY)[0].text
    assert out == f"import os{text}\n"
    assert err == ""


def test_json_carries_what_a_machine_needs(model_dir, capsys):
    command = ["generate", model_dir, "import os", "--seed", "3", "--n", "2", "--max-tokens", "9", "--json"]
    assert run(command) == 0
    answer = json.loads(capsys.readouterr().out)
    sampling = Sampling(0.8, 0, 0.95, 0.0, 3)
    wanted = generate(model(), tokenizer(), ["import os"] * 2, max_tokens=9, sampling=sampling)
    assert answer["seed"] == 3
    assert [g["ids"] for g in answer["generations"]] == [g.ids for g in wanted]
    assert set(answer["generations"][0]) == {"prompt", "text", "ids", "finish_reason", "log_probs"}


def test_a_seed_that_was_not_given_is_told_and_gives_the_text_again(model_dir, capsys):
    command = ["generate", model_dir, "x", "--max-tokens", "9", "--json"]
    run(command)
    first = json.loads(capsys.readouterr().out)
    run([*command, "--seed", str(first["seed"])])
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize("arguments, said", [
    (["x", "--top-p", "0"], "top_p"), (["x", "--temperature", "-1"], "temperature"), (["x", "--n", "0"], "--n"),
    (["x", "--max-tokens", "0"], "max_tokens"), (["x " * 100], "context"), (["x", "--dtype", "int8"], "dtype"),
    (["x", "--stop", ""], "stop string"), (["x", "--device", "foo"], "device 'foo'"), (["x", "--tempo", "1"], "--tempo"),
])
def test_a_wrong_request_is_one_line_and_exit_code_2(model_dir, capsys, arguments, said):
    assert run(["generate", model_dir, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("command", [["generate", "nowhere", "x"], ["eval", "nowhere"], ["info", "nowhere"]])
def test_a_path_that_is_not_there_is_said_before_torch_is_loaded(tmp_path, command):
    code = f"import sys; from llmwright.cli import run; code = run({command}); sys.exit(99 if 'torch' in sys.modules else code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "llmwright: nowhere: no such file or directory\n")


def test_no_model_there(tmp_path, capsys):
    assert run(["generate", str(tmp_path / "nowhere"), "x"]) == 2
    assert "no such file or directory" in capsys.readouterr().err
