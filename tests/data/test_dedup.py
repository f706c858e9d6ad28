"""Duplicates: exact ones by hash, near ones by MinHash, held against exact Jaccard similarities and edited copies."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.data.dedup import digest, repeated
from llmwright.data.near import PERMUTATIONS, NearDuplicates, bands, signatures
from llmwright.data.rolling import window_hashes
from llmwright.data.sources import list_source
from llmwright.data.words import word_hashes, word_spans


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=20))
def test_exact_duplicates_keep_the_first(texts):
    digests = np.array([digest(text.encode()) for text in texts], np.uint64).reshape(-1, 2)
    assert repeated(digests).tolist() == [text in texts[:i] for i, text in enumerate(texts)]


def test_both_halves_of_the_hash_count():
    digests = np.array([[1, 1], [1, 2], [2, 1], [1, 1]], np.uint64)
    assert repeated(digests).tolist() == [False, False, False, True]


def words_of(text):
    """The definition, in one line of another engine."""
    cjk = "\u3000-\u9fff\ua000-\udfff\U00010000-\U0010ffff"
    other = f"(?:(?![{cjk}])[\\w\x80-\uffff])"
    return re.findall(f"[{cjk}]{other}*|{other}+", text, re.A)


@given(st.lists(st.text(st.sampled_from("abAB_9 .,\n-é中本")), max_size=8))
def test_words_are_found_in_every_text(texts):
    hashes, lengths = word_hashes([text.encode() for text in texts])
    known = {}
    at = 0
    for text, n in zip(texts, lengths):
        words = words_of(text)
        assert len(words) == n
        starts, ends = word_spans(text.encode())
        assert [text.encode()[a:b].decode() for a, b in zip(starts, ends)] == words
        for word, h in zip(words, hashes[at : at + n].tolist()):
            lower = re.sub("[A-Z]", lambda m: m[0].lower(), word)
            assert known.setdefault(lower, h) == h
        at += n
    assert len(set(known.values())) == len(known)


@given(st.integers(0, 20), st.integers(1, 6), st.randoms())
def test_windows_are_equal_exactly_where_their_content_is(length, n, rng):
    values = np.array([rng.randrange(3) for _ in range(length)], np.uint64)
    hashes = window_hashes(values, n).tolist()
    windows = [tuple(values[i : i + n].tolist()) for i in range(max(0, length - n + 1))]
    assert len(hashes) == len(windows)
    assert [a == b for a in hashes for b in hashes] == [a == b for a in windows for b in windows]


def test_windows_across_blocks(monkeypatch):
    from llmwright.data import rolling

    values = np.arange(5_000, dtype=np.uint32) % 97
    whole = window_hashes(values, 13)
    monkeypatch.setattr(rolling, "_LIMIT", 100)
    assert (window_hashes(values, 13) == whole).all()


def document(rng, n=400):
    return [f"word{rng.randrange(5_000)}" for _ in range(n)]


def jaccard(a, b):
    a, b = ({tuple(x[i : i + 5]) for i in range(len(x))} for x in (a, b))
    return len(a & b) / len(a | b)


def edited(rng, words, share):
    return [f"new{rng.randrange(10**9)}" if rng.random() < share else word for word in words]


def test_signatures_estimate_the_jaccard_similarity():
    rng, errors = random.Random(1), []
    for share in (0.005, 0.01, 0.02, 0.05, 0.1):
        for _ in range(40):
            a = document(rng)
            b = edited(rng, a, share)
            s = signatures([" ".join(a).encode(), " ".join(b).encode()])
            errors.append((s[0] == s[1]).mean() - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.01  # unbiased: 200 pairs, so four standard errors are 0.012
    assert np.std(errors) < 1.2 * np.sqrt(0.25 / PERMUTATIONS)


def test_layout_and_punctuation_do_not_matter_and_order_of_documents_does_not_either():
    a = "def f(x):\n    return x + 1  # Adds one to it, and no more"
    b = "DEF f(x) :\n\treturn x+1 # adds one; to it and no more!"
    s = signatures([a.encode(), b"something else entirely, with words", b.encode()])
    assert (s[0] == s[2]).all() and (s[0] != s[1]).mean() > 0.9
    assert (signatures([b.encode()])[0] == s[2]).all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_banding_finds_pairs_at_the_threshold(threshold):
    n, rows = bands(threshold)
    assert n * rows <= PERMUTATIONS and 1 - (1 - threshold**rows) ** n >= 0.98


def find(tmp_path, texts, threshold=0.8, alive=None, batch=7):
    near = NearDuplicates(tmp_path, threshold)
    for i in range(0, len(texts), batch):
        near.add(signatures(texts[i : i + batch]))
    return near.drop(np.ones(len(texts), bool) if alive is None else alive)


def test_edited_copies_are_dropped_and_the_first_is_kept(tmp_path):
    rng = random.Random(2)
    originals = [document(rng) for _ in range(300)]
    near = [edited(rng, a, 0.01) for a in originals]  # about 0.9 of the shingles agree
    far = [edited(rng, a, 0.10) for a in originals]  # about 0.4
    assert all(jaccard(a, b) < 0.65 for a, b in zip(originals, far))
    texts = [" ".join(words).encode() for words in originals + near + far]
    dropped = find(tmp_path, texts)
    sure = np.array([jaccard(a, b) > 0.88 for a, b in zip(originals, near)])
    assert sure.sum() > 150
    assert not dropped[:300].any()
    assert dropped[300:600][sure].mean() > 0.97
    assert not dropped[600:].any()


def test_many_copies_of_one_text_leave_one_and_texts_without_words_are_left_alone(tmp_path):
    texts = [b"one and the same text of some words %d" % (i == 50) for i in range(100)] + [b"...", b"---", b"..."]
    dropped = find(tmp_path, texts)
    assert np.flatnonzero(~dropped).tolist() == [0, 50, 100, 101, 102]


def test_what_is_no_longer_there_makes_no_duplicates(tmp_path):
    texts = [b"the same words here as there and everywhere else"] * 3
    assert find(tmp_path, texts, alive=np.array([False, True, True])).tolist() == [False, False, True]


def test_the_standard_library_loses_only_files_that_are_much_the_same(tmp_path):
    files = list_source("s", "python:stdlib").files
    texts = [Path(f.path).read_bytes() for f in files]
    dropped = np.flatnonzero(find(tmp_path, texts))
    assert len(dropped) < 0.06 * len(files)

    def shingles(text):
        words = words_of(text.decode("utf-8", "replace").lower()) + [""] * 4
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    sets = [shingles(text) for text in texts]
    for i in dropped:
        best = max((len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for j in range(i) if sets[i] & sets[j]), default=0)
        assert best > 0.65, files[i].name  # 0.8 less four standard errors of the estimate
