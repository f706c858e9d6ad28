"""docs/serve.md is true: its example runs, its options, paths, parameters and metrics are there, its defaults are so."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from server_case import Server

from llmwright.cli import run
from llmwright.serve.protocol import NOTHING, ChatRequest, CompletionRequest
from llmwright.serve.settings import EngineSettings, Limits

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}((?:llmwright|curl) .+)$", PAGE, re.MULTILINE)


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_python_example_runs(server, capsys):
    pytest.importorskip("openai", reason="needs the openai package")
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(code.replace("http://localhost:8000", server.url).replace("smollm2-135m-instruct", "m"), {})
    assert capsys.readouterr().out.strip()


def test_the_options_are_there_and_their_defaults_are_so(capsys):
    assert run(["serve", "--help"]) == 0
    known = capsys.readouterr().out
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert option in known, option
    limits, engine = Limits(), EngineSettings("m")
    for option, value in re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", section("Limits"), re.MULTILINE):
        name = {"max-body": "body_bytes"}.get(option, option.replace("-", "_"))
        assert float(value) == getattr(limits, name, None) or float(value) == getattr(engine, name, None), option
        assert re.search(rf"--{option} <[^>]+>[^\[]*\[(default: )?[^]]*{value}", known), option


def test_parameters_paths_and_metrics_are_there(server):
    fields = {*ChatRequest.model_fields, *CompletionRequest.model_fields, *NOTHING, "stream_options.include_usage"}
    table = "\n".join(line.split(" | ")[0] for line in section("What a request may say").splitlines() if line[:3] == "| `")
    named = re.findall(r"`([a-z_.]+)`", table)
    assert len(named) > 20 and set(named) <= fields
    assert set(ChatRequest.model_fields) - set(re.findall(r"`([a-z_]+)`", PAGE)) <= {"model", "messages", "stream_options"}
    paths = server.client.get("/openapi.json").json()["paths"]
    for path in re.findall(r"`(?:GET|POST) (/[a-z/1]*)`", PAGE):
        assert path in paths or path in ("/", "/docs", "/openapi.json"), path
    server.complete(prompt="x", max_tokens=2)
    server.post("/v1/completions", prompt=3)
    text = server.client.get("/metrics").text
    for name in re.findall(r"`((?:vllm|llmwright):[a-z0-9_]+)", PAGE):
        assert name in text, name


@pytest.mark.slow
@pytest.mark.network
def test_the_shown_commands_work(smollm2):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    _, serve, curl = COMMANDS
    assert serve.startswith("llmwright serve ")
    server = Server(smollm2)
    try:
        command = shlex.split(curl.replace("smollm2-135m-instruct", "m").replace("localhost:8000", server.url))
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"].strip()
        server.signal()
        assert server.wait() == 0
    finally:
        server.close()
