"""`llmwright plan`, as a person or a program calls it."""

import json
import subprocess
import sys
import resource

import pytest
import typer
from typer.testing import CliRunner

from llmwright.cli.plan import plan
from llmwright.errors import RequestError

app = typer.Typer()
app.command()(plan)


def ask(*arguments: str) -> str:
    """What the command prints; its errors are raised."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


def test_preset_for_people():
    text = ask("gpt3-175b", "--tokens", "300B", "--n-devices", "1024")
    for figure in ("174,604,259,328", "3.14e+23", "3,638", "on 1024 × h100", "16.00 MiB", "What would make it fit"):
        assert figure in text


def test_json_is_the_whole_plan():
    answer = json.loads(ask("mixtral-8x22b", "--device", "h200", "--json"))
    assert answer["parameters"]["total"] == 140_620_634_112
    assert answer["active_parameters"] == 39_152_031_744
    assert answer["device"] == "h200" and answer["fits"] is False


def test_budget_any_way_round():
    by_params = json.loads(ask("--params", "70B", "--json"))
    by_tokens = json.loads(ask("--tokens", "1.4T", "--json"))
    by_flops = json.loads(ask("--flops", "5.88e23", "--json"))
    for answer in (by_params, by_tokens, by_flops):
        assert answer["tokens"] == pytest.approx(1.4e12, rel=1e-6)
        assert answer["parameters"]["total"] == pytest.approx(70e9, rel=0.002)
    # 30 days at 40 % of 989 TFLOP/s: 1.0254e21 FLOPs, √(C/120) parameters
    by_days = json.loads(ask("--days", "30", "--device", "h100", "--json"))
    assert by_days["parameters"]["total"] == pytest.approx((30 * 86_400 * 0.4 * 989e12 / 120) ** 0.5, rel=0.005)
    assert by_days["seconds"] <= 30 * 86_400


def test_recipe_with_overrides(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: mine\ntokenizer: {vocab_size: 1000}\n"
                    "model: {family: gpt2, d_model: 64, n_layers: 2, context: 128}\n"
                    "train: {steps: 10, batch: 4, precision: float32, optimizer: {name: adamw}}\n")
    answer = json.loads(ask(str(file), "--device", "cpu-2-cores", "--json"))
    by_hand = 1000 * 64 + 128 * 64 + 2 * (12 * 64 * 64 + 13 * 64) + 2 * 64
    assert answer["parameters"]["total"] == by_hand
    assert answer["tokens"] == 10 * 4 * 128 and answer["name"] == "mine"
    answer = json.loads(ask(str(file), "train.steps=20", "--device", "cpu", "--batch", "8", "--json"))
    assert answer["tokens"] == 20 * 8 * 128 and answer["steps"] == 20
    with pytest.raises(RequestError, match="train.setps"):
        ask(str(file), "train.setps=3", "--device", "cpu")


def test_model_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }))
    assert json.loads(ask(str(tmp_path), "--device", "h100", "--json"))["parameters"]["total"] == 8_030_261_248


@pytest.mark.parametrize("arguments, said", [
    ((), "nothing to plan"),
    (("gpt5",), "gpt5: no such preset"),
    (("gpt2", "--params", "1B"), "--params 1B"),
    (("gpt2", "--batch", "-1"), "--batch -1"),
    (("gpt2", "--tokens", "many"), "--tokens many: not a number"),
    (("gpt2", "--tokens", "-3"), "--tokens -3: it must be more than 0"),
    (("--params", "1e40"), "--params 1e40: it must be more than 0 and at most"),
    (("--params", "7"), "7 parameters is beyond"),
    (("gpt2", "--device", "h1000"), "did you mean h100"),
    (("gpt2", "--precision", "int8"), "--precision int8: it must be one of"),
    (("gpt2", "--context", "5000"), "beyond the 1024 positions"),
    (("gpt2", "model.d_model=3"), "only a recipe"),
    (("train.steps=3",), "needs its recipe before it"),
    (("/nowhere/at/all.yaml",), "no such recipe"),
    (("/",), "not a model directory"),
])
def test_mistakes_are_one_line_that_names_them(arguments, said):
    with pytest.raises(RequestError, match=said.replace("(", r"\(")) as raised:
        ask(*arguments)
    assert "\n" not in str(raised.value)


def test_preset_answers_at_once_and_without_torch():
    code = ("import sys, typer; from llmwright.cli.plan import plan; app = typer.Typer(); app.command()(plan)\n"
            "try: app(['llama-3-70b', '--json'])\nexcept SystemExit: pass\n"
            "sys.exit('torch' in sys.modules)")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of processor time, which a busy machine does not stretch as it does the clock: 0.3 s alone
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
