"""Shards: what is written is what is read, and damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from data_case import EOT, VOCAB, make_split
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright.data.shards import DataDir, ShardWriter, Split, open_split
from llmwright.errors import RequestError, WorkError

documents = st.lists(st.lists(st.integers(1, 999), max_size=12), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(documents=documents, shard_tokens=st.integers(1, 40), vocab=st.sampled_from([1000, 70_000]), at=st.data())
def test_documents_come_back_in_order_whatever_the_shards(tmp_path_factory, documents, shard_tokens, vocab, at):
    directory = tmp_path_factory.mktemp("data")
    stored = [[EOT, *d] for d in documents]
    cut = at.draw(st.integers(0, len(stored)))
    writer = ShardWriter(directory / "train", "s", vocab, shard_tokens)
    for document in stored[:cut]:
        writer.add(np.array(document), len(document) * 2)
    rest = stored[cut:]
    writer.add_many(
        np.concatenate([np.array(d) for d in rest]) if rest else np.empty(0, int),
        np.array([len(d) for d in rest], int), np.array([len(d) * 2 for d in rest], int),
    )
    shards = writer.close()
    card = {"vocab_size": vocab, "bos_id": EOT, "splits": {"train": {"shards": shards}}}
    (directory / "data.json").write_text(json.dumps(card))
    split = open_split(directory, "train")
    assert [split.document("s", i).tolist() for i in range(split.n_documents)] == stored
    assert split.lengths("s").tolist() == [len(d) for d in stored]
    flat = [token for d in stored for token in d] + [EOT]
    assert split.take(np.arange(len(flat))).tolist() == flat
    backwards = np.arange(len(flat))[::-1]
    assert split.take(backwards).tolist() == flat[::-1]
    assert split.n_tokens == len(flat) - 1 and split.n_bytes == 2 * split.n_tokens
    for shard in shards:  # a shard is over its size only when one document alone is
        assert shard["tokens"] <= shard_tokens or shard["documents"] == 1
    split.verify()


def test_the_files_are_raw_little_endian_and_the_checksum_covers_both(tmp_path):
    writer = ShardWriter(tmp_path, "a", 65_536, 100)
    writer.add_many(np.array([9, 1, 2, 9, 65_535]), np.array([3, 2]), np.array([4, 1]))
    (shard,) = writer.close()
    tokens, docs = (tmp_path / "a-00000.tokens").read_bytes(), (tmp_path / "a-00000.docs").read_bytes()
    assert tokens == bytes([9, 0, 1, 0, 2, 0, 9, 0, 255, 255])
    assert docs == b"".join(n.to_bytes(8, "little") for n in (0, 4, 3, 1))
    assert shard == {"file": "a-00000.tokens", "source": "a", "tokens": 5, "documents": 2, "bytes": 5,
                     "dtype": "uint16", "checksum": xxhash.xxh3_128_hexdigest(tokens + docs)}
    writer = ShardWriter(tmp_path, "b", 65_537, 100)
    writer.add(np.array([9, 65_536]), 1)
    assert writer.close()[0]["dtype"] == "uint32" and len((tmp_path / "b-00000.tokens").read_bytes()) == 8


def test_an_empty_source_writes_nothing(tmp_path):
    assert ShardWriter(tmp_path / "x", "a", 100, 10).close() == [] and not (tmp_path / "x").exists()


def test_source_names_that_are_no_file_names_do_not_collide_or_escape(tmp_path):
    files = []
    for name in ("a/b", "a:b", "../a"):
        writer = ShardWriter(tmp_path, name, 100, 10)
        writer.add(np.array([0, 1]), 1)
        files += [shard["file"] for shard in writer.close()]
    assert len(set(files)) == 3 and all((tmp_path / file).is_file() and "/" not in file for file in files)


def test_an_id_beyond_the_vocabulary_is_never_written_wrapped_around(tmp_path):
    with pytest.raises(WorkError, match="70000 is outside the vocabulary of 1000"):
        ShardWriter(tmp_path, "a", 1000, 10).add(np.array([0, 70_000]), 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here to play the full disk")
def test_a_full_disk_is_named(tmp_path):
    writer = ShardWriter(tmp_path, "a", 1000, 10**9)
    writer.add(np.array([0, 1]), 1)
    writer._file.close()
    writer._file = open("/dev/full", "wb")  # every write that reaches this device fails as on a full disk
    with pytest.raises(WorkError, match="a-00000.tokens: cannot be written: No space left on device"):
        writer.add(np.arange(1000).repeat(1000), 1)
        writer.close()


def test_damage_is_named_when_opening(tmp_path):
    make_split(tmp_path, {"a": [5, 6], "b": [4]})
    tokens, card = tmp_path / "train" / "b-00000.tokens", tmp_path / "data.json"
    whole, text = tokens.read_bytes(), card.read_text()
    tokens.write_bytes(whole[:-4])
    with pytest.raises(RequestError, match=r"b-00000.tokens: 12 bytes, but data.json says 16"):
        open_split(tmp_path, "train")
    tokens.unlink()
    with pytest.raises(RequestError, match=r"b-00000.tokens: missing"):
        open_split(tmp_path, "train")
    tokens.write_bytes(whole)
    card.write_text(text.replace("uint32", "uint16"))
    with pytest.raises(RequestError, match=r"data.json says its tokens are uint16"):
        open_split(tmp_path, "train")
    docs = tokens.with_suffix(".docs")
    docs.write_bytes(docs.read_bytes() + b"12345678")
    card.write_text(text)
    with pytest.raises(RequestError, match=r"b-00000.docs: 24 bytes, but data.json says 16"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("suffix", [".tokens", ".docs"])
def test_verify_finds_one_flipped_bit(tmp_path, suffix):
    split = make_split(tmp_path, {"a": [50, 60], "b": [40]})
    split.verify()
    path = (tmp_path / "train" / "b-00000.tokens").with_suffix(suffix)
    data = bytearray(path.read_bytes())
    data[9] ^= 4
    path.write_bytes(data)
    with pytest.raises(RequestError, match=r"b-00000.tokens: its checksum"):
        open_split(tmp_path, "train").verify()


def test_verify_finds_ids_and_documents_that_cannot_be(tmp_path):
    writer = ShardWriter(tmp_path / "train", "a", VOCAB, 100)
    writer.add(np.array([7, 5000]), 1)
    shards = writer.close()
    card = {"vocab_size": VOCAB, "bos_id": 8, "splits": {"train": {"shards": shards}}}
    (tmp_path / "data.json").write_text(json.dumps(card))
    with pytest.raises(RequestError, match="a document does not begin with the end-of-text id 8"):
        open_split(tmp_path, "train").verify()
    split = open_split(tmp_path, "train")
    split.vocab_size, split.eot_id = 5000, 7
    with pytest.raises(RequestError, match="holds the id 5000, but the vocabulary has 5000"):
        split.verify()


def test_verify_finds_document_starts_that_cannot_be(tmp_path):
    make_split(tmp_path, {"a": [5, 6, 4]})
    card = json.loads((tmp_path / "data.json").read_text())
    (entry,) = card["splits"]["train"]["shards"]
    docs = tmp_path / "train" / "a-00000.docs"
    tokens = docs.with_suffix(".tokens").read_bytes()
    for starts in ([0, 11, 5], [0, 5, 5], [5, 5, 11], [0, 5, 15], [0, -4, 11]):
        docs.write_bytes(np.array([[start, 3] for start in starts], "<i8").tobytes())
        entry["checksum"] = xxhash.xxh3_128_hexdigest(tokens + docs.read_bytes())
        (tmp_path / "data.json").write_text(json.dumps(card))
        with pytest.raises(RequestError, match="a-00000.docs: its document starts do not ascend"):
            DataDir.open(tmp_path).verify(["train"])


def test_what_was_verified_is_read_again_only_when_it_changed(tmp_path, monkeypatch):
    make_split(tmp_path, {"a": [50, 60], "b": [40]})
    read = []
    real = Split.verify_shard
    monkeypatch.setattr(Split, "verify_shard", lambda split, shard: read.append(shard.name) or real(split, shard))
    for expected in (["a-00000.tokens", "b-00000.tokens"], []):
        DataDir.open(tmp_path).verify(["train"])
        assert read == expected
        read.clear()
    path = tmp_path / "train" / "b-00000.docs"
    data = bytearray(path.read_bytes())
    data[9] ^= 4
    path.write_bytes(data)
    with pytest.raises(RequestError, match="b-00000.tokens: its checksum .with b-00000.docs. is not"):
        DataDir.open(tmp_path).verify(["train"])
    assert read == ["b-00000.tokens"]
    with pytest.raises(RequestError, match="b-00000.tokens: its checksum"):  # a fault is not remembered as right
        DataDir.open(tmp_path).verify(["train"])
    (tmp_path / ".verified.json").write_text("[]")  # nor does a damaged memory matter
    with pytest.raises(RequestError, match="b-00000.tokens: its checksum"):
        DataDir.open(tmp_path).verify(["train"])


def test_a_directory_that_cannot_be_written_is_verified_all_the_same(tmp_path):
    make_split(tmp_path, {"a": [50, 60]})
    (tmp_path / ".verified.json").mkdir()  # as good as no right to write, for root too
    DataDir.open(tmp_path).verify(["train"])


@pytest.mark.parametrize("splits, said", [
    ({}, "no split train; it has none"), ({"train": {}}, "list of shards for the split train"),
    ({"train": {"shards": {}}}, "list of shards"), ({"train": {"shards": [5]}}, "list of shards"),
    ({"train": {"shards": [{}]}}, "a shard of train has no right file, source"), ([], "has no splits"),
])
def test_a_data_json_of_another_shape_is_one_line(tmp_path, splits, said):
    (tmp_path / "data.json").write_text(json.dumps({"vocab_size": 5, "bos_id": 0, "splits": splits}))
    with pytest.raises(RequestError, match=f"{tmp_path}.*{said}") as error:
        DataDir.open(tmp_path).split("train")
    assert "\n" not in str(error.value)


def test_a_wrong_directory_or_split_is_named(tmp_path):
    with pytest.raises(RequestError, match="no data.json there"):
        DataDir.open(tmp_path)
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(RequestError, match="data.json: cannot be read"):
        DataDir.open(tmp_path)
    (tmp_path / "data.json").write_text('{"vocab_size": 5, "bos_id": 0}')
    with pytest.raises(RequestError, match="has no splits"):
        DataDir.open(tmp_path)
    (tmp_path / "data.json").write_text('{"vocab_size": 5, "bos_id": 0, "splits": {"val": {"shards": []}}}')
    with pytest.raises(RequestError, match="there is no split train; it has val"):
        open_split(tmp_path, "train")
    with pytest.raises(RequestError, match="the split val is empty"):
        open_split(tmp_path, "val")


def test_the_fingerprint_changes_with_one_token(tmp_path):
    prints = []
    for name, token in (("one", 5), ("two", 5), ("three", 6)):
        writer = ShardWriter(tmp_path / name / "train", "a", 100, 100)
        writer.add(np.array([0, token]), 1)
        card = {"vocab_size": 100, "bos_id": 0, "splits": {"train": {"shards": writer.close()}}}
        (tmp_path / name / "data.json").write_text(json.dumps(card))
        prints.append(DataDir.open(tmp_path / name).fingerprint)
    assert prints[0] == prints[1] != prints[2]
