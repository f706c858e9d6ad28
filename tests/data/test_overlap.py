"""Overlap with the evaluation text: held against a search through sets of word tuples."""

import random
from collections import defaultdict

import numpy as np
import pytest

from llmwright.data import overlap
from llmwright.data.overlap import HASH, HIT, Runs, build_filter, candidates, evaluation_hashes, may_contain, resolve


def grams(text, n):
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def expected(training, evaluation, n):
    """The first position of a shared n-gram that at most 10 training documents have; −1 without one."""
    known = {g for text in evaluation for g in grams(text, n)}
    documents = defaultdict(set)
    for i, text in enumerate(training):
        for g in grams(text, n):
            documents[g].add(i)
    found = [[at for at, g in enumerate(grams(text, n)) if g in known and len(documents[g]) <= 10] for text in training]
    return [at[0] if at else -1 for at in found]


def search(tmp_path, training, evaluation, n, batch=5):
    runs = Runs(tmp_path / "evaluation", HASH)
    for i in range(0, len(evaluation), batch):
        runs.add(evaluation_hashes([t.encode() for t in evaluation[i : i + batch]], n))
    runs.close()
    build_filter(runs, tmp_path / "filter")
    table = np.fromfile(tmp_path / "filter", np.uint64)
    hits = Runs(tmp_path / "hits", HIT)
    for i in range(0, len(training), batch):
        texts = [t.encode() for t in training[i : i + batch]]
        hits.add(candidates(table, texts, n, np.arange(i, i + len(texts))))
    hits.close()
    return resolve(hits, runs, len(training)).tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 2, 13])
def test_the_same_documents_as_a_plain_search(tmp_path, monkeypatch, seed, n):
    monkeypatch.setattr(overlap, "_RANGE", 2_000)  # so that several ranges are resolved
    monkeypatch.setattr(overlap, "_CHUNK", 50)
    rng = random.Random(seed)

    def text():
        return " ".join(f"w{rng.randrange(60 if n < 13 else 10**6)}" for _ in range(rng.randrange(0, 60)))

    evaluation, training = [text() for _ in range(12)], [text() for _ in range(60)]
    if n == 13:
        for _ in range(20):  # plant passages of 12, 13 and 14 words
            words = rng.choice(evaluation).split()
            at, i = rng.randrange(len(words) + 1), rng.randrange(len(training))
            training[i] += " " + " ".join(words[at : at + rng.randrange(12, 15)])
    found = search(tmp_path, training, evaluation, n)
    assert found == expected(training, evaluation, n)
    assert n < 13 or 0 < sum(at >= 0 for at in found) < len(training)


def test_boilerplate_decides_nothing(tmp_path):
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software"
    evaluation = [f"{licence} evaluated"]
    for copies, dropped in ((10, True), (11, False)):
        training = [f"text number {i} {licence}" for i in range(copies)]
        assert all((at >= 0) == dropped for at in search(tmp_path, training, evaluation, 13))


def test_a_passage_across_two_documents_is_no_overlap(tmp_path):
    words = [f"w{i}" for i in range(20)]
    training = [" ".join(words[:10]), " ".join(words[10:])]
    assert search(tmp_path, training, [" ".join(words)], 13) == [-1, -1]
    assert search(tmp_path, [" ".join(words)], training, 13) == [-1]


def test_the_filter_never_misses_and_is_seldom_wrong(tmp_path):
    rng = np.random.default_rng(0)
    known, others = rng.integers(0, 2**64, (2, 200_000), dtype=np.uint64)
    runs = Runs(tmp_path / "runs", HASH)
    runs.add(np.sort(known).view(HASH))
    runs.close()
    build_filter(runs, tmp_path / "filter")
    table = np.fromfile(tmp_path / "filter", np.uint64)
    assert may_contain(table, known).all()
    assert may_contain(table, others).mean() < 0.02
    assert table.nbytes * 8 / len(known) <= 33
