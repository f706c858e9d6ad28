"""`llmwright embed`: how alike texts are, or their vectors; what is wrong in one line and exit code 2."""

import io
import json

import numpy as np
import pytest
from small import model as decoder
from small import tokenizer as bpe

import llmwright as lw
from llmwright.checkpoint import directory
from llmwright.cli import run
from llmwright.families import read_config
from llmwright.model.build import new
from llmwright.tokens.published import read_bert
from llmwright.tokens.tokenizer import Tokenizer

WORDS = "the cat sat on a mat dog ran to me and you saw it all day long".split()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    shape = dict(model_type="bert", architectures=["BertModel"], vocab_size=22, hidden_size=48, intermediate_size=96,
                 num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, initializer_range=0.3)
    directory.save(new(read_config(shape), seed=3), folder / "m", tokenizer=Tokenizer(*read_bert(folder / "vocab.txt")))
    return str(folder / "m")


def test_a_few_texts_are_compared_all_with_all(path, capsys):
    assert run(["embed", path, "the cat sat", "a dog ran", "you"]) == 0
    out, err = capsys.readouterr()
    vectors = lw.load(path).embed(["the cat sat", "a dog ran", "you"])
    lines = out.splitlines()
    assert lines[0].split() == ["cosine", "1", "2", "3"] and err == ""
    for i, line in enumerate(lines[1:4]):
        assert line.split()[:4] == [str(i + 1), *(f"{x:.3f}" for x in vectors[i] @ vectors.T)]
    assert lines[1].endswith("  the cat sat")
    assert lines[4] == "48 numbers a text: --json prints them, -o vectors.npy saves them"


def test_one_text_shows_its_first_numbers(path, capsys):
    assert run(["embed", path, "the cat sat"]) == 0
    vector = lw.load(path).embed("the cat sat")
    assert vector.shape == (48,)
    assert capsys.readouterr().out.startswith(" ".join(f"{x:.4f}" for x in vector[:6]) + " …\n")


def test_of_many_texts_the_closest_pairs_are_shown(path, capsys, tmp_path):
    texts = [" ".join(WORDS[i : i + 4]) for i in range(12)] + ["the cat sat on"]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    assert run(["embed", path, "--file", str(tmp_path / "t.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the 10 closest pairs of 13 texts, by cosine"
    assert lines[1].split() == ["1.000", *"the cat sat on the cat sat on".split()]
    found = [float(line.split()[0]) for line in lines[1:11]]
    assert found == sorted(found, reverse=True)


def test_json_and_a_file_hold_the_vectors(path, capsys, tmp_path):
    texts = ["the cat sat", "a dog ran"]
    vectors = lw.load(path).embed(texts)
    assert run(["embed", path, *texts, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["dimensions"], answer["dtype"]) == (48, "float32")
    np.testing.assert_allclose(answer["vectors"], vectors, rtol=1e-6)
    assert run(["embed", path, *texts, "-o", str(tmp_path / "v.npy")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err == f"{tmp_path / 'v.npy'}: 2 vectors of 48 numbers\n"
    assert np.array_equal(np.load(tmp_path / "v.npy"), vectors)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_precision_asked_for_is_used(path, capsys, dtype):
    assert run(["embed", path, "the cat sat", "--json", "--dtype", dtype]) == 0
    answer = json.loads(capsys.readouterr().out)
    exact = lw.load(path).embed("the cat sat")
    assert answer["dtype"] == dtype
    assert 1e-5 < np.abs(np.array(answer["vectors"][0]) - exact).max() < 0.05


def test_lines_come_from_stdin_too_with_any_line_end(path, capsys, monkeypatch):
    class Stdin:
        buffer = io.BytesIO("\ufeffthe cat\r\na dog\u2028ran\r\n".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert run(["embed", path, "--file", "-", "--json"]) == 0
    vectors = json.loads(capsys.readouterr().out)["vectors"]
    np.testing.assert_allclose(vectors, lw.load(path).embed(["the cat", "a dog\u2028ran"]), rtol=1e-5, atol=1e-6)


def test_texts_that_are_cut_are_told_on_stderr(path, capsys):
    assert run(["embed", path, "cat " * 40]) == 0
    assert "the text is longer than the 32 tokens that are read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, said", [
    ([], "give texts, or --file FILE"), (["a", "--file", "-"], "not both"), (["a", " "], "text 2 is empty"),
    (["--file", "{here}/empty.txt"], "no text in it"), (["--file", "{here}/gap.txt"], "gap.txt: line 2 is empty"),
    (["--file", "{here}/none.txt"], "cannot be read"), (["--file", "{here}/latin.txt"], "not UTF-8"),
    (["--file", "{here}/many.txt"], "2,001 texts: say where their vectors go"),
    (["a", "-o", "{here}/v.txt"], "name it something.npy"), (["a", "-o", "{here}/no/v.npy"], "no directory"),
    (["a", "--dtype", "float16"], "dtype 'float16' is not supported"), (["a", "--prompt", "query"], "it has: none"),
    (["a", "--max-tokens", "99"], "the model reads at most 32"),
])
def test_a_wrong_request_is_one_clear_line(path, arguments, said, capsys, tmp_path):
    files = {"empty": b"", "gap": b"a\n\nb\n", "latin": b"caf\xe9", "many": b"a\n" * 2001}
    for name, content in files.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    assert run(["embed", path, *(a.format(here=tmp_path) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.glob("*.npy"))


def test_a_decoder_is_told_what_embeds(tmp_path, capsys):
    directory.save(decoder(), tmp_path / "m", tokenizer=bpe())
    assert run(["embed", str(tmp_path / "m"), "a"]) == 2
    assert "vectors come from an encoder, such as all-minilm-l6-v2" in capsys.readouterr().err
