"""What deploy/ gives to Prometheus and Grafana is true: it can be read, and each name in it is one that the server has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def names(text: str) -> set[str]:
    return set(re.findall(r"(?:vllm|llmwright):[a-z0-9_]+", text))


def test_every_name_is_one_that_the_server_has(server):
    server.complete(prompt="x", max_tokens=2)
    server.post("/v1/completions", prompt=3)
    there = names(server.client.get("/metrics").text)
    queries = [t["expr"] for p in json.loads((DEPLOY / "grafana.json").read_text())["panels"] for t in p["targets"]]
    rules = [r["expr"] for g in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for r in g["rules"]]
    assert len(queries) > 10 and len(rules) > 3
    for query in queries + rules:
        assert names(query) and names(query) <= there, query


def test_prometheus_reads_its_files():
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:8000"]
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    done = subprocess.run([promtool, "check", "config", str(DEPLOY / "prometheus.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_metrics(server):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    server.complete(prompt="x", max_tokens=2)
    text = server.client.get("/metrics").text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    problems = [line for line in (done.stdout + done.stderr).splitlines() if "colons" not in line and "non-base" not in line]
    assert done.returncode in (0, 3) and not [line for line in problems if "error" in line.lower()], problems
