"""The command line's rules: light help, exit codes, one clear line for an error, a traceback only when asked."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = ["build", "plan", "prepare", "pretrain", "eval", "generate", "info"]


def llmwright(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "llmwright", *arguments], capture_output=True, text=True, **options)


def test_help_imports_nothing_heavy():
    """What makes --help answer at once: no torch, no pydantic, not even numpy."""
    code = (
        "import sys; from llmwright import cli; cli._app();"
        "print(sorted({'torch', 'numpy', 'pydantic', 'tokenizers', 'pyarrow', 'yaml', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = llmwright(command, "--help")
    assert done.returncode == 0 and "Usage: llmwright " + command in done.stdout


@pytest.mark.parametrize("arguments, said", [
    (["nonsense"], "nonsense"),
    (["build"], "RECIPE"),
    (["build", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
    (["generate", "nowhere", "hi"], "nowhere"),
    (["info", "nowhere"], "nowhere"),
    (["prepare", "nowhere.txt", "-o", "out"], "nowhere.txt"),
    (["plan", "gpt22"], "gpt22"),
    (["build", "--frsh"], "--frsh"),
])
def test_a_wrong_request_is_one_line_and_exit_code_2(arguments, said, tmp_path):
    done = llmwright(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and os.listdir(tmp_path) == []


def test_debug_shows_the_traceback(tmp_path):
    done = llmwright("build", "nowhere.yaml", "--debug", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_version():
    import llmwright as package

    assert llmwright("--version").stdout.strip() == f"llmwright {package.__version__}"


def test_a_stop_before_training_says_how_to_go_on(tmp_path):
    """SIGTERM in the middle of preparing: exit code 1, one line, nothing half-written."""
    (tmp_path / "r.yaml").write_text("train: {steps: 1}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "llmwright", "build", "r.yaml", "out=run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (tmp_path / "run" / "lock").exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "the same command goes on" in stderr and "Traceback" not in stderr
    assert not (tmp_path / "run" / "data").exists()
