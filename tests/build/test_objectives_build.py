"""Masked, span and sequence-to-sequence trainings from a recipe to a measured model: each learns what only its objective can
teach, goes on bit for bit after a stop, and is a model directory that transformers reads."""

import json
import os
import random
import signal

import pytest
import torch
from safetensors.torch import load_file

from llmwright import recipe as recipes
from llmwright.build.pretrain import make_job
from llmwright.build.show import data_summary, summary
from llmwright.build.stages import build
from llmwright.checkpoint.directory import load
from llmwright.data.shards import DataDir
from llmwright.errors import Interrupted, RequestError
from llmwright.progress import Progress
from llmwright.tokens.load import load as load_tokenizer
from llmwright.train.loop import train
from llmwright.train.run import Run

LETTERS = "abcdefghijklmnop"
SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 2, "context": 32, "init_std": 0.1}
COMMON = {"precision": "float32", "tensorboard": False, "save_minutes": 60, "batch": 16, "eval_every": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For masks texts that run through the alphabet round and round from a random letter; for spans texts of one
    letter; for pairs a word and its letters large."""
    folder, draw = tmp_path_factory.mktemp("objectives"), random.Random(0)
    texts = {name: open(folder / f"{name}.jsonl", "w") for name in ("masked", "span")}
    with texts["masked"], texts["span"], open(folder / "pairs.tsv", "w") as pairs:
        pairs.write("source\ttarget\n")
        for _ in range(400):
            start, n = draw.randrange(16), draw.randint(40, 90)
            around = "".join(LETTERS[(start + k) % 16] for k in range(n))
            texts["masked"].write(json.dumps({"text": around}) + "\n")
            texts["span"].write(json.dumps({"text": LETTERS[start] * n}) + "\n")
            word = "".join(draw.choices(LETTERS, k=draw.randint(2, 9)))
            pairs.write(f"{word}\t{word.upper()}\n")
    return folder


def recipe(folder, objective: str, out, *overrides, **train):
    text = {"corpus": str(folder / f"{objective}.jsonl"), "near_duplicates": None, "exact_duplicates": False, "overlap_tokens": 0, "clean": {"quality": False}}
    family = {"masked": "bert", "span": "t5", "seq2seq": "marian"}[objective]
    prompt = {"masked": "abcd[MASK]fgh", "span": "eeee<extra_id_0>eeeee", "seq2seq": "fade"}[objective]
    tree = {
        "out": str(out), "data": {"pairs": {"words": {"path": str(folder / "pairs.tsv")}}} if objective == "seq2seq" else text,
        "tokenizer": {"kind": "chars"} | ({"sentinels": 10} if objective == "span" else {}),
        "model": {"family": family, **SIZES},
        "train": {"objective": objective, "steps": 12, "prompts": [prompt], "sample_tokens": 12, **COMMON, **train},
    }
    return recipes.parse(tree, list(overrides))


STEPS = {"masked": 250, "span": 200, "seq2seq": 250}
LEARNED = {"masked": 0.9, "span": 0.6, "seq2seq": 0.9}


@pytest.fixture(scope="module")
def built(folder):
    made = {}

    def once(objective):
        if objective not in made:
            out = folder / objective
            made[objective] = out, build(recipe(folder, objective, out, steps=STEPS[objective]))
        return made[objective]

    return once


@pytest.mark.parametrize("objective", STEPS)
def test_it_learns_what_was_hidden(built, objective):
    """A letter of the alphabet follows from its neighbours, a span's from the rest of the text, a large letter from its
    small one. How long a span is cannot be known."""
    out, result = built(objective)
    test = result["test"]
    assert test["objective"] == objective and test["accuracy"] > LEARNED[objective], test
    assert {"masked": "e", "span": "<extra_id_0>e", "seq2seq": "FADE"}[objective] in json.loads(
        (out / "samples.jsonl").read_text().splitlines()[-1]
    )["text"]
    assert all({"prompt", "text", "reference"} <= set(c) for c in test["completions"])
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] > LEARNED[objective] and "val_bpb" not in last
    assert "% right" in summary(result)


def test_speed_counts_what_is_read_and_the_loss_what_is_predicted(built):
    """Of masked rows 15 % are predicted and all are read."""
    out, result = built("masked")
    tokens = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["tokens"]
    assert 16 * 32 * 0.8 < tokens <= 16 * 32


@pytest.mark.parametrize("objective", STEPS)
def test_a_second_build_does_nothing(built, folder, objective):
    out, _ = built(objective)
    assert not any(build(recipe(folder, objective, out, steps=STEPS[objective]))["seconds"].values())


@pytest.mark.parametrize("objective", STEPS)
def test_a_stop_and_more_steps_equal_one_go(folder, built, tmp_path, objective):
    """Masks, spans and the order of pairs are drawn the same again: weights, optimizers and losses end bit for bit."""
    data = DataDir.open(built(objective)[0] / "data")

    def go(run_path, stop_at=None):
        with Run(run_path) as run:
            job = make_job(recipe(folder, objective, run_path, "model.dropout=0.1"), data, run, Progress())
            first, calls = job.objective, []

            def counted(model, batch):
                calls.append(1)
                if len(calls) == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                return first(model, batch)

            job.objective = counted
            train(job)

    go(tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(tmp_path / "stopped", stop_at=5)
    go(tmp_path / "stopped")
    found = []
    for name in ("whole", "stopped"):
        folder_ = tmp_path / name / "checkpoints" / "step-12"
        found.append(load_file(folder_ / "model/model.safetensors") | load_file(folder_ / "state/tensors.safetensors"))
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][n], found[1][n]) for n in found[0])
    losses = [[json.loads(line).get("loss") for line in open(tmp_path / name / "metrics.jsonl")] for name in ("whole", "stopped")]
    assert losses[0] == losses[1]


def test_transformers_reads_them_with_the_same_logits(built):
    import transformers

    for objective, auto in (("masked", "AutoModelForMaskedLM"), ("span", "AutoModelForSeq2SeqLM"), ("seq2seq", "AutoModelForSeq2SeqLM")):
        path = built(objective)[0] / "model"
        ours, theirs = load(path), getattr(transformers, auto).from_pretrained(path).eval()
        ids = torch.tensor([load_tokenizer(path).encode("badcafe")])
        with torch.no_grad():
            if objective == "masked":
                pair = ours(ids), theirs(ids).logits
            else:
                pair = ours(ids, ids[:, :3]), theirs(ids, decoder_input_ids=ids[:, :3]).logits
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective, family, said", [
    ("causal", "bert", "train.objective: causal trains a decoder, and bert is an encoder, which learns by masked"),
    ("masked", "qwen3", "train.objective: masked trains an encoder, and qwen3 is a decoder, which learns by causal"),
    ("span", "gpt2", "span trains an encoder-decoder, and gpt2 is a decoder, which learns by causal"),
    ("masked", "t5", "masked trains an encoder, and t5 is an encoder-decoder, which learns by span or seq2seq"),
])
def test_an_objective_that_does_not_fit_the_family_is_said_before_any_work(tmp_path, objective, family, said):
    wanted = recipes.parse({"out": str(tmp_path / "r"), "train": {"objective": objective, "steps": 1}, "model": {"family": family}})
    with pytest.raises(RequestError, match=said):
        build(wanted)
    assert not (tmp_path / "r").exists()


def test_prompts_without_a_gap_are_said_before_training(folder, built):
    for objective, said in (("masked", r"'abc' has no mask to fill in: write \[MASK\]"), ("span", "'abc' has no span to write")):
        data = DataDir.open(built(objective)[0] / "data")
        for key in ("train.prompts", "eval.prompts"):
            with Run(folder / "prompts") as run, pytest.raises(RequestError, match=said):
                make_job(recipe(folder, objective, folder / "prompts", f"{key}=[abc]"), data, run, Progress())


def test_data_of_the_wrong_kind_is_said(folder, built):
    text, pairs, plain = (DataDir.open(built(o)[0] / "data") for o in ("masked", "seq2seq", "span"))
    for objective, data, said in (("seq2seq", text, "holds texts, and train.objective seq2seq learns from pairs"),
                                  ("masked", pairs, "holds pairs, which train.objective seq2seq learns from, not masked"),
                                  ("masked", plain, "needs a tokenizer with a mask token"),
                                  ("span", text, "needs a tokenizer with sentinels")):
        with Run(folder / "wrong") as run, pytest.raises(RequestError, match=said):
            make_job(recipe(folder, objective, folder / "wrong"), data, run, Progress())


def test_long_pairs_are_left_out_and_told(folder, built):
    class Heard(Progress):
        lines = []

        def say(self, text):
            self.lines.append(text)

    with Run(folder / "long") as run:
        make_job(recipe(folder, "seq2seq", folder / "long", "train.context=6"), DataDir.open(built("seq2seq")[0] / "data"), run, Heard())
    assert any("training pairs are beyond train.context 6: left out" in line for line in Heard.lines)


def test_a_data_directory_of_pairs_is_counted_in_pairs(built):
    out, _ = built("seq2seq")
    assert " pairs " in data_summary(DataDir.open(out / "data").card, out)


def test_prepare_and_pretrain_by_hand(folder, tmp_path, monkeypatch, capsys):
    """prepare --objective gives the tokenizer what the objective needs; pretrain says how much was right."""
    from llmwright import cli

    monkeypatch.chdir(tmp_path)
    sets = ["near_duplicates=null", "overlap_tokens=0", "exact_duplicates=false", "clean={quality: false}"]
    sets = [word for item in sets for word in ("--set", item)]
    assert cli.run(["prepare", str(folder / "masked.jsonl"), "-o", "d", "--kind", "chars", "--objective", "masked", *sets]) == 0
    assert load_tokenizer(tmp_path / "d").mask_id is not None
    written = recipe(folder, "masked", tmp_path / "r", steps=3)
    (tmp_path / "r.yaml").write_text(written.to_yaml())
    assert cli.run(["pretrain", "r.yaml", "--data", "d"]) == 0
    assert "% right" in capsys.readouterr().out
    assert cli.run(["prepare", str(folder / "masked.jsonl"), "-o", "e", "--objective", "masking"]) == 2
    assert "train.objective: 'masking' is not allowed" in capsys.readouterr().err
