"""`llmwright generate`: the text on stdout, nothing else there; what is wrong in one line and exit code 2."""

import json
import math
import subprocess
import sys

import pytest
from rich.cells import cell_len
from small import model, tokenizer, translator

from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.beam import Beams
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


def test_json_tells_likelier_tokens_and_a_beams_score_where_asked(model_dir, capsys):
    command = ["generate", model_dir, "import os", "--beams", "3", "--logprobs", "2", "--max-tokens", "4", "--json"]
    assert run(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seed"] is None  # nothing is drawn
    answer = told["generations"][0]
    asked = dict(max_tokens=4, sampling=GREEDY, beams=Beams(3), top_log_probs=2)
    wanted = generate(model(), tokenizer(), "import os", **asked)[0]
    assert answer["ids"] == wanted.ids and answer["score"] == pytest.approx(wanted.score)
    for place, told in zip(wanted.top_log_probs, answer["top_log_probs"], strict=True):
        assert [(one["id"], one["log_prob"]) for one in told] == [(i, pytest.approx(p)) for i, p in place]
        assert told[0]["token"] == tokenizer().token_bytes(place[0][0]).decode("utf-8", "replace")


def test_every_option_reaches_the_sampler(model_dir, capsys):
    options = (
        "--seed 3 --max-tokens 9 --json --temperature 1.2 --top-k 50 --top-p 0.9 --min-p 0.001 --typical 0.95 "
        "--repetition-penalty 1.3 --presence-penalty 0.5 --frequency-penalty 0.2 --logit-bias def=-3 --logit-bias 7=2 "
        "--bad-words self --min-tokens 3 --stop-token x --stop-token 9 --stop zzz"
    )
    assert run(["generate", model_dir, "import os", *options.split()]) == 0
    sampling = Sampling(1.2, 50, 0.9, 0.001, 3, 0.95, 1.3, 0.5, 0.2, {"def": -3, 7: 2}, ["self"], 3)
    wanted = generate(
        model(), tokenizer(), "import os", max_tokens=9, sampling=sampling, stop=["zzz"], stop_tokens=["x", 9])[0]
    assert json.loads(capsys.readouterr().out)["generations"][0]["ids"] == wanted.ids


def test_probabilities_are_printed_a_line_a_token(model_dir, capsys):
    assert run(["generate", model_dir, "import os", "--greedy", "--max-tokens", "3", "--logprobs", "2"]) == 0
    result = generate(model(), tokenizer(), "import os", max_tokens=3, sampling=GREEDY)[0]
    lines = capsys.readouterr().out.splitlines()[-3:]
    for line, log_prob in zip(lines, result.log_probs):
        assert f" {math.exp(log_prob):.4f} " in line and len(line.split()) >= 5


def test_n_best_are_numbered_with_their_scores(model_dir, capsys):
    assert run(["generate", model_dir, "import os", "--beams", "3", "--n", "2", "--max-tokens", "3"]) == 0
    out = capsys.readouterr().out
    assert "--- 1  (score -" in out and "--- 2  (score -" in out


def test_a_translation_is_printed_without_its_source(tmp_path, capsys):
    directory.save(translator(), tmp_path / "t", tokenizer=tokenizer())
    assert run(["generate", str(tmp_path / "t"), "import os", "--max-tokens", "5"]) == 0  # it is greedy by default
    wanted = generate(translator(), tokenizer(), "import os", max_tokens=5, sampling=GREEDY)[0].text
    assert capsys.readouterr().out == f"{wanted}\n"


def test_examples_come_before_the_prompt_and_end_the_answer(model_dir, tmp_path, capsys):
    task = tmp_path / "task.yaml"
    task.write_text('format: "{input} -> {output}"\nseparator: "\\n"\nexamples: [{input: a, output: b}]\n')
    assert run(["generate", model_dir, "c", "--shots", str(task), "--greedy", "--max-tokens", "5"]) == 0
    wanted = generate(model(), tokenizer(), "a -> b\nc ->", max_tokens=5, sampling=GREEDY, stop="\n")[0].text
    assert capsys.readouterr().out == wanted.strip() + "\n"
    none = ["--shots", str(task), "--n-shots", "0"]
    assert run(["generate", model_dir, "c", *none, "--json", "--max-tokens", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["generations"][0]["prompt"] == "c ->"


@pytest.mark.parametrize("sampling", [["--greedy"], ["--temperature", "1.2", "--top-k", "9", "--seed", "2"]])
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_an_explanation_fits_80_columns_and_ends_with_the_text(model_dir, tmp_path, capsys, kind, sampling):
    path, made = model_dir, model()
    if kind == "encoder-decoder":
        path, made = str(tmp_path / "t"), translator()
        directory.save(made, path, tokenizer=tokenizer())
    prompt = "class Größe(object):\n    x = '🙂你好'"
    assert run(["generate", path, prompt, "--explain", "--steps", "3", *sampling]) == 0
    out = capsys.readouterr().out
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    for part in ("TEXT", "TOKENS", "EMBEDDINGS", "DISTRIBUTION  token 3", "CHOICE  token 3"):
        assert f"\n{part}" in f"\n{out}"
    assert run(["generate", path, prompt, "--explain", "--steps", "3", *sampling, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["choices"]) == 3 and data["text"].split()[-1] in out
    assert all(str(choice["chosen"][0]) in out for choice in data["choices"])


def test_a_seed_that_was_not_given_is_told_and_gives_the_text_again(model_dir, capsys):
    command = ["generate", model_dir, "x", "--max-tokens", "9", "--json"]
    run(command)
    first = json.loads(capsys.readouterr().out)
    run([*command, "--seed", str(first["seed"])])
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize("arguments, said", [
    (["x", "--top-p", "0"], "top_p"), (["x", "--temperature", "-1"], "temperature"), (["x", "--n", "0"], "--n"),
    (["x", "--max-tokens", "0"], "max_tokens"), (["x " * 100], "context"), (["x", "--dtype", "int8"], "dtype"),
    (["x", "--stop", ""], "stop string"), (["x", "--greedy", "--top-p", "0.9"], "greedy and top_p 0.9 contradict"),
    (["x", "--beams", "4", "--temperature", "1"], "beams and temperature 1.0"),
    (["x", "--beams", "2", "--n", "3"], "n 3 is more than the 2 beams"),
    (["x", "--length-penalty", "2"], "length_penalty 2.0"), (["x", "--beams", "2", "--early-stopping", "x"], "'x'"),
    (["x", "--logit-bias", "x"], "--logit-bias 'x'"), (["x", "--logit-bias", "x=y"], "--logit-bias 'x=y'"),
    (["x", "--bad-words", ""], "bad word is empty"), (["x", "--stop-token", "x y"], "stop_tokens: 'x y'"),
    (["x", "--shots", "nowhere.yaml"], "nowhere.yaml: no such file"), (["x", "--n-shots", "2"], "give --shots"),
    (["x", "--explain", "--n", "2"], "leave --n out"), (["x", "--explain", "--steps", "0"], "--steps 0"),
    (["x", "--sinks", "2"], "give --window"), (["x", "--window", "2"], "window of 2 positions"),
    (["x", "--logprobs", "-1"], "top_log_probs -1"), (["x", "--n", "2", "--greedy"], "n 2 and greedy"),
    (["x", "--device", "foo"], "device 'foo'"), (["x", "--tempo", "1"], "--tempo"),
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
