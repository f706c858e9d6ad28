"""Reading: every kind of file gives the documents a person would say it holds, with bounded memory, and bad input is
named."""

import gzip
import io
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmwright import recipe
from llmwright.data import read, row_files
from llmwright.data.pieces import lines, pieces
from llmwright.data.row_files import HOW
from llmwright.data.sources import list_source
from llmwright.data.work import _documents
from llmwright.errors import RequestError

ROWS = [{"id": 1, "text": "first text,\nwith \"quotes\""}, {"id": 2, "text": "zweiter Text: größer"},
        {"id": 3, "text": "third"}]
TEXTS = [row["text"] for row in ROWS]


def texts_of(path, key="text", counts=None):
    """Every document's text, as the workers see it."""
    counts = Counter() if counts is None else counts
    listing = list_source("s", str(path), key)
    return [text for batch in read.batches(listing, counts) for _, text in _documents(batch, counts)]


def write(path: Path, rows=ROWS):
    """The rows in the format that the name asks for, written by the format's own library."""
    name, data = path.name, None
    if ".jsonl" in name:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif ".json" in name:
        data = json.dumps(rows, indent=1, ensure_ascii=False).encode()
    elif ".csv" in name:
        import csv

        out = io.StringIO()
        writer = csv.DictWriter(out, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
        data = out.getvalue().encode()
    elif ".parquet" in name:
        import pyarrow
        import pyarrow.parquet

        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
        data = out.getvalue()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    if name.endswith(".zst"):
        import zstandard

        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_row_is_a_document_in_every_format(tmp_path, kind, suffix):
    assert texts_of(write(tmp_path / f"rows.{kind}{suffix}")) == TEXTS


@pytest.mark.parametrize("suffix", ["txt", "md", "py", "txt.gz"])
def test_a_text_file_is_a_document(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    data = "Ein Text.\n\nMit zwei Absätzen.\n".encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert texts_of(path) == ["Ein Text.\n\nMit zwei Absätzen.\n"]


def test_a_file_of_another_kind_is_read_as_text_when_it_is_named(tmp_path):
    (tmp_path / "wiki.test.raw").write_text("named directly\n")
    assert texts_of(tmp_path / "wiki.test.raw") == ["named directly\n"]


def test_json_lines_under_the_name_json_and_one_object(tmp_path):
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert texts_of(tmp_path / "a.json") == TEXTS
    (tmp_path / "b.json").write_text(json.dumps(ROWS[0], indent=2))
    assert texts_of(tmp_path / "b.json") == TEXTS[:1]


def test_a_large_json_array_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "BLOCK", 7)
    rows = [{"text": f"{i} é " * (i % 5 + 1)} for i in range(200)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert texts_of(tmp_path / "a.json") == [row["text"] for row in rows]


def test_tsv_takes_quotes_as_they_are_and_a_number_names_a_column_without_header(tmp_path):
    (tmp_path / "a.tsv").write_text('ham\tan "open quote\nspam\t"another\n')
    assert texts_of(tmp_path / "a.tsv", key="1") == ['an "open quote', '"another']


def test_only_line_feeds_end_a_row_of_a_table(tmp_path):
    text = "form\x0cfeed, separator\u2028 and \x85 next"
    (tmp_path / "a.csv").write_text(f'text\n"{text}"\nplain\x0cfeed\n')
    assert texts_of(tmp_path / "a.csv") == [text, "plain\x0cfeed"]
    (tmp_path / "a.tsv").write_bytes("id\ttext\r\n1\ta\rb\u2028c\r\n".encode())
    assert texts_of(tmp_path / "a.tsv") == ["a\rb\u2028c"]


def test_a_table_that_is_not_utf_8_is_repaired_and_counted(tmp_path):
    counts = Counter()
    (tmp_path / "a.csv").write_bytes("text\nGröße\n".encode("cp1252"))
    assert texts_of(tmp_path / "a.csv", counts=counts) == ["Größe"] and counts["not UTF-8"] == 1


def test_a_folder_is_read_in_sorted_order_and_its_hidden_and_odd_files_are_counted(tmp_path):
    for name in ("b/z.txt", "b/a.md", "a.py", ".hidden.txt", ".git/x.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\0")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    listing = list_source("s", str(tmp_path))
    batches = list(read.batches(listing, Counter()))
    assert [name for batch in batches for name, _ in batch.items] == ["a.py", "b/a.md", "b/z.txt"]
    assert listing.skipped == {"other kinds": 1, "binary": 1, "empty": 1, "unreadable": 1}


def test_python_sources(tmp_path):
    stdlib = list_source("stdlib", "python:stdlib")
    names = [f.name for f in stdlib.files]
    assert {"argparse.py", "json/decoder.py"} <= set(names) and names == sorted(names, key=names.index)
    assert not [n for n in names if {"test", "tests", "idle_test", "site-packages"} & set(n.split("/"))]
    from pydoc_data.topics import topics

    assert sorted(texts_of("python:topics")) == sorted(topics.values())


def test_a_large_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "WHOLE", 5_000)
    monkeypatch.setattr(read, "PIECE", 1_000)
    paragraphs = [f"paragraph {i} " * 8 for i in range(200)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    parts = texts_of(tmp_path / "a.txt")
    assert "".join(parts) == "\n\n".join(paragraphs)
    assert len(parts) > 10 and all(part.endswith("\n\n") for part in parts[:-1])


def test_one_endless_line_is_cut_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "WHOLE", 5_000)
    monkeypatch.setattr(read, "PIECE", 1_000)
    (tmp_path / "a.txt").write_text("a" + "é" * 10_000)
    counts = Counter()
    parts = texts_of(tmp_path / "a.txt", counts=counts)
    assert "".join(parts) == "a" + "é" * 10_000
    assert counts["cut inside a line"] == len(parts) - 1 == 20
    assert not counts["not UTF-8"]


def test_a_row_beyond_the_limit_is_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "LONGEST_ROW", 3 << 20)
    rows = [{"text": "a"}, {"text": "x" * (9 << 20)}, {"text": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = Counter()
    assert texts_of(tmp_path / "a.jsonl", counts=counts) == ["a", "b"]
    assert counts["rows too long"] == 1


@given(st.binary(max_size=300), st.integers(8, 40), st.integers(0, 60))
def test_pieces_join_to_the_whole_and_are_bounded(data, size, head):
    cuts = []
    parts = list(pieces(data[:head], io.BytesIO(data[head:]), size, lambda: cuts.append(1)))
    assert b"".join(parts) == data
    assert all(0 < len(part) <= size for part in parts)


@settings(max_examples=200)
@given(st.lists(st.text("ab\u00e9", max_size=12), max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_lines_leaves_out_long_lines_only(rows, block, limit):
    from llmwright.data import pieces as module

    original, module.BLOCK = module.BLOCK, block
    try:
        long = []
        data = "".join(row + "\n" for row in rows).encode()
        got = [(n + i, line) for n, part in lines(io.BytesIO(data), limit, long.append)
               for i, line in enumerate(part.split(b"\n")[:-1])]
    finally:
        module.BLOCK = original
    assert sorted([n for n, _ in got] + long) == list(range(1, len(rows) + 1))
    assert all(line == rows[n - 1].encode() for n, line in got)
    assert all(len(line) <= limit + 2 * block for _, line in got)  # a block at either end is not looked at
    assert all(len(rows[n - 1].encode()) > limit for n in long)


BAD = {
    "missing": (lambda p: None, "no such file or folder"),
    "empty": (lambda p: p.touch(), "empty"),
    "binary": (lambda p: p.write_bytes(b"PK\3\4\0\0\0"), "binary"),
    "pipe": (lambda p: __import__("os").mkfifo(p), "neither a file nor a folder"),
    "empty folder": (lambda p: p.mkdir(), "no text in this folder"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_path_is_named(tmp_path, case):
    make, message = BAD[case]
    path = tmp_path / "corpus.txt"
    make(path)
    with pytest.raises(RequestError) as error:
        texts_of(path)
    assert str(path) in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens but cannot be read")
def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    with pytest.raises(RequestError, match="a.txt"):
        texts_of(tmp_path / "a.txt")


@pytest.mark.parametrize("name, data, message", [
    ("a.txt.gz", gzip.compress(b"text " * 1000, mtime=0)[:-20], "damaged compressed file"),
    ("a.txt.gz", b"no gzip at all", "damaged compressed file"),
    ("a.txt.zst", b"no zstandard at all", "damaged compressed file"),
    ("a.json", b'[{"text": "a"}, {"text": ', "not valid JSON"),
    ("a.json", b'{"text": ', "not valid JSON"), ("a.json", b"[" * 100_000, "not valid JSON"),
    ("a.json", b'{"a":' * 100_000, "not valid JSON"),
    ("a.csv", b"id,body\n1,a\n", "no column 'text'; its columns are id, body" + HOW),
    ("a.parquet", b"PAR1 but not really", "not a parquet file"),
    ("a.jsonl", b'{"body": "a", "n": 1}\n' * 3, "no row has text under 'text'; found body, n" + HOW),
    ("a.json", b'[{"body": "a", "n": 1}]', "no row has text under 'text'; found body, n" + HOW),
])
def test_a_damaged_or_unfit_file_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RequestError) as error:
        texts_of(tmp_path / name)
    assert name in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_text_key_says_how_to_name_the_right_one():
    assert HOW == ": set data.text_key=NAME (llmwright prepare: --set text_key=NAME)"


def test_unknown_python_source_and_hub_without_network_are_one_clear_line():
    with pytest.raises(RequestError, match="python:stdlib and python:topics"):
        list_source("s", "python:pip")
    with pytest.raises(RequestError, match="hub:owner/name"):
        list_source("s", "hub:a/b/c")
    with pytest.raises(RequestError) as error:
        texts_of("hub:no-such-owner/no-such-data")
    assert str(error.value).startswith("hub:no-such-owner/no-such-data") and "\n" not in str(error.value)


def test_the_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = list_source("s", str(tmp_path)).fingerprint()
    assert list_source("s", str(tmp_path)).fingerprint() == before
    (tmp_path / "a.txt").write_text("three")
    changed = list_source("s", str(tmp_path)).fingerprint()
    (tmp_path / "b.txt").write_text("one")
    assert len({before, changed, list_source("s", str(tmp_path)).fingerprint()}) == 3


def test_names_of_sources_lead_to_listings():
    sources = recipe.Data(corpus=["python:stdlib", "python:topics"]).sources()
    assert list(sources) == ["stdlib", "topics"]
