"""A whole build, small: from text to a measured model that other tools load, resumable and never thrown away."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llmwright import recipe as recipes
from llmwright.build.stages import build
from llmwright.checkpoint.directory import load
from llmwright.errors import RequestError
from llmwright.progress import Progress
from llmwright.tokens.load import load as load_tokenizer

TREE = {
    "data": {"corpus": {"topics": "python:topics"}},
    "tokenizer": {"vocab_size": 512},
    "model": {"d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "context": 128},
    "train": {"steps": 40, "batch": 8, "eval_every": 20, "eval_tokens": 2000, "sample_every": 20, "prompts": ["The "],
              "sample_tokens": 8, "precision": "float32", "tensorboard": False},
    "eval": {"tokens": 4000, "prompts": ["The "], "max_tokens": 8},
}


class Heard(Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def recipe(out: Path, *overrides: str):
    return recipes.parse(json.loads(json.dumps(TREE)), [f"out={out}", *overrides])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "run"
    return out, build(recipe(out))


def test_it_measures_a_model_that_learned(built):
    out, result = built
    assert result["result"]["state"] == "finished" and result["result"]["steps"] == 40
    test = result["test"]
    assert test["loss"] < math.log(512) - 1  # one nat better than knowing nothing
    assert test["bits_per_byte"] == pytest.approx(test["loss"] * test["tokens"] / math.log(2) / test["bytes"], rel=1e-6)
    assert test["perplexity_per_token"] == pytest.approx(math.exp(test["loss"]), rel=1e-6)
    assert (out / "report.html").stat().st_size > 1_000_000  # the plots' script is in the page
    assert [json.loads(line)["step"] for line in (out / "samples.jsonl").open()] == [20, 40]


def test_the_model_loads_in_transformers_with_the_same_logits(built):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, _ = built
    ours, theirs = load(out / "model"), AutoModelForCausalLM.from_pretrained(out / "model").eval()
    text = "The import statement binds names."
    ids = load_tokenizer(out / "model").encode(text)
    assert AutoTokenizer.from_pretrained(out / "model")(text, add_special_tokens=False).input_ids == ids
    with torch.no_grad():
        assert torch.allclose(ours(torch.tensor([ids])), theirs(torch.tensor([ids])).logits, atol=1e-4)


def test_a_second_build_does_nothing(built):
    out, _ = built
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file() and f.name not in ("lock",)}
    heard = Heard()
    result = build(recipe(out), progress=heard)
    assert heard.lines[-1] == "all stages are up to date"
    assert not any(result["seconds"].values())
    assert before == {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file() and f.name not in ("lock",)}


def test_only_the_stage_whose_inputs_changed_runs_again(built):
    out, first = built
    result = build(recipe(out, "eval.tokens=3000"))
    assert result["seconds"]["test"] > 0 and result["seconds"]["training"] == 0 == result["seconds"]["data"]
    assert result["test"]["tokens"] == 3000
    build(recipe(out))


@pytest.mark.parametrize("change, said", [
    ("train.steps=50", "the recipe's model, train or seed changed"),
    ("model.d_model=32", "the recipe's model, train or seed changed"),
    ("tokenizer.vocab_size=600", "the corpus, or the recipe's data or tokenizer section, changed"),
])
def test_a_changed_recipe_never_overwrites_a_trained_run(built, change, said):
    out, _ = built
    with pytest.raises(RequestError, match=said):
        build(recipe(out, change))
    assert (out / "model" / "model.safetensors").exists()


def test_a_refused_build_leaves_the_plan_and_the_recipe_as_they_were(built):
    """The plan that the report compares with what happened is the one made before the first step."""
    out, _ = built
    before = (out / "plan.json").read_bytes(), (out / "recipe.yaml").read_bytes()
    with pytest.raises(RequestError):
        build(recipe(out, "train.steps=60"))
    assert before == ((out / "plan.json").read_bytes(), (out / "recipe.yaml").read_bytes())


def test_sources_weights_are_part_of_what_was_trained(built):
    from llmwright.build.pretrain import fingerprint

    out, _ = built
    light, heavy = (recipe(out, f"data.corpus={{topics: {{path: 'python:topics', weight: {w}}}}}") for w in (1, 9))
    assert fingerprint(light) != fingerprint(heavy)


def test_training_goes_on_from_a_model_directory(built, tmp_path):
    """`model.start_from`: the loaded weights are where it starts, and its tokenizer must be the data's."""
    out, first = built
    keep = ["model={start_from: '%s'}" % (out / "model"), "train.steps=2", "eval.tokens=500", "eval.prompts=[]"]
    with pytest.raises(RequestError, match="another tokenizer"):
        build(recipe(tmp_path / "other", *keep, "tokenizer.vocab_size=400"))
    build(recipe(tmp_path / "more", *keep, f"tokenizer.path={out / 'model'}", "train.optimizer.lr=1e-6", "train.optimizer.muon_lr=1e-6"))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "more" / "metrics.jsonl").open() if '"loss"' in line]
    assert losses[0] < first["result"]["final"]["val_loss"] + 0.5  # not a new model's 6.2
    with pytest.raises(RequestError, match="model.d_model does not go with model.start_from"):
        build(recipe(tmp_path / "third", "model={start_from: '%s', d_model: 32}" % (out / "model")))


def test_fresh_builds_anew(tmp_path):
    out = tmp_path / "run"
    build(recipe(out, "train.steps=2", "eval.tokens=500"))
    result = build(recipe(out, "train.steps=3", "eval.tokens=500"), fresh=True)
    assert result["result"]["steps"] == 3 and len(list((out / "checkpoints").iterdir())) == 1


def test_an_interrupted_build_goes_on(tmp_path):
    """Ctrl-C in the training: saved, exit code 1; the same command finishes it and the log has every step once."""
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TREE))
    command = [sys.executable, "-m", "llmwright", "build", "r.yaml", f"out={tmp_path / 'run'}", "train.steps=150"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "metrics.jsonl"
    for _ in range(2400):
        if process.poll() is not None or (log.exists() and log.read_text().count("\n") >= 3):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1 and "stopped by SIGINT at step" in stderr, stderr
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "going on from step" in done.stderr, done.stderr
    assert json.loads(done.stdout)["result"]["steps"] == 150
    steps = [r["step"] for r in map(json.loads, log.open()) if "loss" in r]
    assert steps == list(range(1, 151))


def test_a_corpus_smaller_than_one_context_is_named(tmp_path):
    (tmp_path / "small.txt").write_text("A short text that is here alone, and says little.\n")
    with pytest.raises(RequestError, match="training tokens, fewer than one row|vocabulary|too small|smaller") as caught:
        build(recipe(tmp_path / "run", f"data.corpus={tmp_path / 'small.txt'}", "tokenizer.kind=bytes"))
    assert "\n" not in str(caught.value)
    assert os.path.isdir(tmp_path / "run") and not (tmp_path / "run" / "model").exists()


def test_impossible_shapes_are_named(tmp_path):
    with pytest.raises(RequestError, match="model: n_heads 3 does not divide d_model 64"):
        build(recipe(tmp_path / "run", "model.n_heads=3"))
