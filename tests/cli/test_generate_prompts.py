"""`llmwright generate MODEL --prompts FILE`: a text a line, in order, each what it would be alone; errors name the line."""

import io
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from llmwright import families
from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.engine.language_model import load
from llmwright.model.build import new
from llmwright.tokens.tokenizer import Tokenizer
from llmwright.tokens.train import train

PROMPTS = ["import os", "def main():", "x", "class Größe(object):", "import os"]
TEMPLATE = ("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}")


def make(path: Path, **shape) -> str:
    made = train([(Path(sysconfig.get_path("stdlib")) / "ast.py").read_text(), "Größe 你好 🙂 " * 20], "bpe", 450)
    tokenizer = Tokenizer(made.tree, {**made.config, "chat_template": TEMPLATE})
    shape = dict(vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id, **shape)
    directory.save(new(families.read_config(shape), seed=1), path, tokenizer=tokenizer)
    return str(path)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make(tmp_path_factory.mktemp("model") / "m", model_type="qwen3", hidden_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=96,
                max_position_embeddings=64, initializer_range=0.3)


@pytest.fixture(scope="module")
def plain(model_dir):
    return load(model_dir)


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_line_gets_the_text_that_it_would_get_alone(model_dir, plain, tmp_path, capsys):
    file = tmp_path / "p.txt"
    file.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    for options, asked in ((["--greedy"], dict(greedy=True)), (["--seed", "3", "--n", "2"], dict(seed=3, n=2)),
                           (["--beams", "3", "--length-penalty", "2"], dict(beams=3, length_penalty=2.0))):
        wanted = plain.generate(PROMPTS, max_tokens=9, **({"temperature": 0.8, "top_p": 0.95} if "seed" in asked else {}),
                                **asked)
        assert run(["generate", model_dir, "--prompts", str(file), "--max-tokens", "9", *options]) == 0
        found = lines(capsys)
        n = asked.get("n", 1)
        assert [r["prompt"] for r in found] == [p for p in PROMPTS for _ in range(n)]
        assert [(r["text"], r["finish_reason"]) for r in found] == [(r.text, r.finish_reason) for r in wanted]
        assert all(set(r) == {"prompt", "text", "finish_reason"} | ({"index"} if n > 1 else set()) | (
            {"score"} if "beams" in asked else set()) for r in found)


def test_a_line_says_more_than_its_prompt(model_dir, plain, tmp_path, capsys):
    file, out = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    asked = [dict(prompt="import os", id="a"), dict(prompt="two\nlines", max_tokens=3, greedy=True), dict(prompt="x", seed=5),
             dict(prompt="x", seed=6, stop="e"), dict(prompt="", id=7, beams=2), dict(prompt="x", logit_bias={"9": -100})]
    file.write_text("".join(json.dumps(line) + "\r\n" for line in asked))
    command = ["generate", model_dir, "--prompts", str(file), "--max-tokens", "6", "--seed", "1", "--json", "-o", str(out)]
    assert run(command) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and "generate: 6 prompts" in printed.err and "tokens" in printed.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["prompt"] for r in found] == [line["prompt"] for line in asked]
    assert [r.get("id") for r in found] == ["a", None, None, None, 7, None]
    draw = dict(temperature=0.8, top_p=0.95)
    for record, options in zip(found, [
        dict(max_tokens=6, seed=1, **draw), dict(max_tokens=3, greedy=True), dict(max_tokens=6, seed=5, **draw),
        dict(max_tokens=6, seed=6, stop="e", **draw), dict(max_tokens=6, beams=2),
        dict(max_tokens=6, seed=1, logit_bias={9: -100}, **draw),
    ]):
        wanted = plain.generate(record["prompt"], **options)
        assert (record["text"], record["ids"]) == (wanted.text, wanted.ids)
        assert len(record["log_probs"]) == len(record["ids"])
    assert [r.get("seed") for r in found] == [1, 1, 5, 6, None, 1]


def test_questions_go_into_the_template(model_dir, plain, tmp_path, capsys, monkeypatch):
    given = '{"prompt": "import", "system": "be brief"}\n{"prompt": "def"}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    command = ["generate", model_dir, "--prompts", "-", "--chat", "--system", "be kind", "--greedy", "--max-tokens", "5"]
    assert run(command) == 0
    found = lines(capsys)
    for record, system in zip(found, ("be brief", "be kind"), strict=True):
        wanted = plain.chat([{"role": "system", "content": system}, {"role": "user", "content": record["prompt"]}],
                            max_tokens=5, greedy=True)
        assert record["text"] == wanted.text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("eins\nGröße\n".encode())))
    assert run(["generate", model_dir, "--prompts", "-", "--max-tokens", "2"]) == 0
    assert [r["prompt"] for r in lines(capsys)] == ["eins", "Größe"]


def test_a_file_of_sources_is_translated(tmp_path, capsys):
    path = make(tmp_path / "t", model_type="t5", d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, n_positions=64,
                relative_attention_num_buckets=8, relative_attention_max_distance=20, tie_word_embeddings=False)
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(dict(prompt=p, **({"beams": 2} if i > 2 else {}))) + "\n"
                            for i, p in enumerate(PROMPTS)))
    assert run(["generate", path, "--prompts", str(file), "--max-tokens", "6"]) == 0
    made = load(path)
    wanted = [*made.generate(PROMPTS[:3], max_tokens=6), *made.generate(PROMPTS[3:], max_tokens=6, beams=2)]
    assert [r["text"] for r in lines(capsys)] == [r.text for r in wanted]


@pytest.mark.parametrize("weights", ["float", "int8", "int4"])
def test_weights_and_determinism_are_said_for_one_prompt_and_for_many(model_dir, tmp_path, capsys, weights):
    how = ["--weights", weights, "--greedy", "--max-tokens", "12", "--deterministic"]
    file = tmp_path / "p.txt"
    file.write_text("\n".join(PROMPTS))
    assert run(["generate", model_dir, "--prompts", str(file), "--json", *how]) == 0
    together = lines(capsys)
    for record in together:
        assert run(["generate", model_dir, record["prompt"], "--json", *how]) == 0
        alone = lines(capsys)[0]["generations"][0]
        assert (alone["ids"], alone["log_probs"]) == (record["ids"], record["log_probs"])  # to the bit
    if weights == "int4":
        exact = load(model_dir).generate(PROMPTS[0], max_tokens=12, greedy=True)
        assert exact.log_probs != together[0]["log_probs"]  # it does something


def test_many_prompts_are_never_all_requests_at_once(model_dir, tmp_path, capsys, monkeypatch):
    from llmwright.engine.llm import LLM

    most, step = [0], LLM.step

    def watched(engine):
        most[0] = max(most[0], len(engine.scheduler.waiting) + len(engine.scheduler.running))
        return step(engine)

    monkeypatch.setattr(LLM, "step", watched)
    file = tmp_path / "p.txt"
    file.write_text("".join(f"x = {i}\n" for i in range(10_000)))
    assert run(["generate", model_dir, "--prompts", str(file), "--greedy", "--max-tokens", "1"]) == 0
    assert [r["prompt"] for r in lines(capsys)] == [f"x = {i}" for i in range(10_000)]
    assert 64 <= most[0] <= 2 * 64


@pytest.mark.parametrize("name, content, said", [
    ("p.txt", "", "p.txt: no prompt in it"), ("p.jsonl", "", "p.jsonl: no prompt in it"),
    ("p.txt", "a\n\nb\n", "p.txt: line 2 is empty"), ("p.txt", "a\n \n", "line 2 is empty"),
    ("p.jsonl", '{"prompt": "a"}\n\n', "line 2 is empty"), ("p.txt", b"a\nb\xff\n", "line 2 is not UTF-8"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "line 2: not valid JSON"),
    ("p.jsonl", "[" * 100_000, "line 1: not valid JSON"),
    ("p.jsonl", '{"prompt": 3}', "line 1: it must be an object"), ("p.jsonl", "[1]", "line 1: it must be an object"),
    ("p.jsonl", '{"text": "a"}', "line 1: it must be an object"),
    ("p.jsonl", '{"prompt": "a", "tempo": 1}', "line 1: no option 'tempo'"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "a", "max_tokens": 0}', "line 2: max_tokens 0"),
    ("p.jsonl", '{"prompt": "a", "max_tokens": true}', "line 1: max_tokens True"),
    ("p.jsonl", '{"prompt": "a", "temperature": -1}', "line 1: temperature"),
    ("p.jsonl", '{"prompt": "a", "beams": "x"}', "line 1: beams"),
    ("p.jsonl", '{"prompt": "a", "greedy": true, "top_p": 0.5}', "line 1: greedy and top_p 0.5 contradict"),
    ("p.jsonl", '{"prompt": "a", "seed": "x"}', "line 1: seed"), ("p.jsonl", '{"prompt": "a", "stop": [1]}', "line 1: stop"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "a", "stop": ""}', "line 2: a stop string is empty"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "a", "stop": ["b", ""]}', "line 2: a stop string is empty"),
    ("p.jsonl", '{"prompt": "a", "system": "b"}', "line 1: system is for a chat model"),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": "a", "logit_bias": {"99999": 1}}', "line 2: logit_bias"),
    ("p.txt", "a\n" + "word " * 200, "line 2: the prompt has"), ("p.csv", "a", "p.csv: prompts are read from a .txt file"),
])
def test_what_is_wrong_with_a_file_is_one_line_that_names_its_line(model_dir, tmp_path, capsys, name, content, said):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / "o.jsonl"
    out.write_text("what was there")
    assert run(["generate", model_dir, "--prompts", str(tmp_path / name), "-o", str(out)]) == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if not line.startswith("generate: ")]
    assert printed.out == "" and said in errors[-1] and len(errors) == 1 and len(errors[0]) < 700, errors
    assert out.read_text() == "what was there" and sorted(p.name for p in tmp_path.iterdir()) == sorted({name, "o.jsonl"})


@pytest.mark.parametrize("arguments, said", [
    (["x", "--prompts", "p.txt"], "leave PROMPT out"), (["x", "-o", "o.jsonl"], "give --prompts"),
    (["--prompts", "p.txt", "--explain"], "leave --explain out"), (["--prompts", "nowhere.txt"], "nowhere.txt: no such file"),
    (["--prompts", "p.txt", "--window", "9"], "leave --window out"), (["--prompts", "p.txt", "-o", "x.json"], "-o x.json"),
    (["--prompts", "p.txt", "-o", "no/where.jsonl"], "no directory"), (["x", "--weights", "int3"], "weights 'int3'"),
    (["--prompts", "p.txt", "--n", "2", "--greedy"], "n 2 and greedy"),
])
def test_a_wrong_request_is_one_line_and_exit_code_2(model_dir, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a\n")
    assert run(["generate", model_dir, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1


def test_a_reader_who_leaves_ends_it(model_dir, tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("".join(f"x = {i}\n" for i in range(2000)))
    command = f'"{sys.executable}" -m llmwright generate "{model_dir}" --prompts "{file}" --max-tokens 2 | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["prompt"] == "x = 0" and "Traceback" not in done.stderr


@pytest.mark.parametrize("line, said", [
    ('{"prompt": "c", "id": "\\ud83c"}', "line 2: \\ud83c is half of a character"),
    ('{"prompt": "\\udc00"}', "line 2: \\udc00 is half of a character"),
    ('{"prompt": "c", "id": NaN}', "line 2: not valid JSON: NaN is no number"),
    ('{"prompt": "c", "greedy": "no"}', "line 2: greedy 'no' is not allowed"),
])
def test_what_could_not_be_written_is_named_before_anything_is_written(line, said, model_dir, tmp_path, capsys):
    file, out = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    file.write_text('{ "prompt": "a"}\n' + line + "\n")
    assert run(["generate", model_dir, "--prompts", str(file), "-o", str(out), "--max-tokens", "3"]) == 2
    assert said in capsys.readouterr().err and not out.exists()
