"""The maps of the embedding table are what they say they are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.decomposition import PCA

from llmwright.report import embedding
from llmwright.report.inputs import Missing
from llmwright.report.maps import _labelled


def test_principal_components_of_a_case_worked_by_hand():
    # a line along (3, 4)/5: all variance in one direction, positions −5, 0, 5 along it
    points, shares = embedding.principal_components(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    assert points[:, 0] == pytest.approx([-5, 0, 5])
    assert shares == pytest.approx([1, 0], abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(2, 12))
def test_principal_components_equal_sklearns(seed, rows, width):
    table = np.random.default_rng(seed).normal(size=(rows, width)) * np.linspace(3, 1, width)
    points, shares = embedding.principal_components(table)
    oracle = PCA(2)
    expected = oracle.fit_transform(table)
    assert np.abs(points) == pytest.approx(np.abs(expected), abs=1e-6)  # directions up to their sign
    assert shares == pytest.approx(oracle.explained_variance_ratio_, abs=1e-9)


def test_tsne_puts_tokens_of_one_direction_together():
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16)[np.repeat(range(4), 30)]
    lengths = rng.uniform(0.5, 5, (120, 1))  # frequent tokens have longer rows: it must not matter
    points = embedding.neighbours((centres + rng.normal(0, 0.05, (120, 16))) * lengths)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(120)
    assert (distance.argmin(axis=1) // 30 == np.arange(120) // 30).mean() > 0.95


@pytest.mark.parametrize("vocab, dtype", [(300, "<u2"), (70_000, "<u4")])
def test_frequencies_count_the_shards(tmp_path, vocab, dtype):
    (tmp_path / "train").mkdir()
    np.array([0, 5, 5, 299], dtype).tofile(tmp_path / "train" / "a-00000.tokens")
    np.array([5, 0], dtype).tofile(tmp_path / "train" / "b-00000.tokens")
    counts = embedding.frequencies(tmp_path, vocab)
    assert counts[[0, 5, 299]].tolist() == [2, 3, 1] and counts.sum() == 6 and len(counts) == vocab


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "transformer.wte.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_table_is_found_by_family_and_read_in_float32(tmp_path, name, dtype):
    table = torch.randn(7, 3).to(dtype)
    save_file({name: table, "lm_head.weight": torch.zeros(7, 3)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"other": torch.zeros(2), "more": torch.zeros(2)}, tmp_path / "model-00001-of-00002.safetensors")
    read = embedding.read_table(tmp_path)
    assert read.dtype == np.float32 and (read == table.float().numpy()).all()


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(Missing, match="model.safetensors cannot be read"):
        embedding.read_table(tmp_path)


@pytest.mark.parametrize("token, kind", [
    (b" return", "keyword"), (b"def", "keyword"), (b" value", "word"), (b"ing", "word part"), (b"x1", "word part"),
    (b"42", "number"), (b" 3.14", "number"), (b"__", "punctuation"), (b"):\n", "punctuation"), (b"\n    ", "white space"),
    (b"\xc3", "other"), (b"\x00", "other"), (b"", "other"), ("é".encode(), "word part"), (b".", "punctuation"),
])
def test_the_kind_of_a_token(token, kind):
    assert embedding.kind(token) == kind


def test_keywords_are_words_where_the_text_is_no_code():
    assert embedding.kind(b" and", code=False) == "word"


@pytest.mark.parametrize("token, drawn", [
    (b" a", "␣a"), (b"\n\n", "↵↵"), (b"        x", "␣×8x"), (b"\xff\x01", "FF 01"), (b"\x07", "U+0007"), ("é".encode(), "é"),
])
def test_a_token_is_drawn_so_that_nothing_is_invisible(token, drawn):
    assert embedding.visible(token) == drawn


def test_labels_do_not_overlap():
    points = np.array([[0.0, 0], [0.001, 0.001], [1, 1]])
    assert _labelled(points, ["one", "two", "three"]) == [0, 2]
