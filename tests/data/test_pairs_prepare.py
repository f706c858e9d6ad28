"""Pairs from files to a data directory: what is read, dropped, kept and split, and what bad files get."""

import csv
import gzip
import json
import random
from collections import Counter

import numpy as np
import pytest

from llmwright import recipe
from llmwright.data.pair_files import list_pairs, read_pairs
from llmwright.data.pairs import Pairs
from llmwright.data.prepare import prepare, up_to_date
from llmwright.data.shards import DataDir
from llmwright.errors import RequestError
from llmwright.tokens.load import load

WORDS = "ein Hund läuft über die Wiese und eine Frau sieht ihm zu während Kinder im Wasser spielen".split()


def texts(n: int, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    made = []
    for i in range(n):
        source = " ".join(draw.choices(WORDS, k=draw.randint(3, 9)))
        made.append((f"{source} {i}.", f"{source.upper()} {i}!"))
    return made


def write(path, pairs) -> dict:
    """Two files, the first packed."""
    with gzip.open(path.with_suffix(".de.gz"), "wt", encoding="utf-8") as file:
        file.writelines(source + "\n" for source, _ in pairs)
    path.with_suffix(".en").write_text("".join(target + "\n" for _, target in pairs), encoding="utf-8")
    return {"source": str(path.with_suffix(".de.gz")), "target": str(path.with_suffix(".en"))}


def run(pairs: dict, out, **data) -> dict:
    return prepare(recipe.Data(pairs=pairs, **data), recipe.Tokenizer(kind="bytes"), out)


def stored(out, part) -> list[tuple[str, str]]:
    """The pairs of a part, from its shards."""
    data, tokenizer = DataDir.open(out), load(out / "tokenizer")
    data.verify((part,))
    pairs = Pairs(data.split(part), 10_000, start_id=0, eos_id=tokenizer.eos_id, pad_id=0)
    batches = [pairs.batch(np.array([i])) for i in range(len(pairs))]
    return [(tokenizer.decode(b.source_ids[0]), tokenizer.decode(b.targets[0])) for b in batches]


def test_published_splits_are_kept_whole(tmp_path):
    """Validation and test pairs stay, duplicates and long ones too; training loses those that they hold."""
    test = [*texts(20, 1), *texts(20, 1)[:3], ("kurz", "l" * 500)]
    train = [*texts(50, 2), *texts(50, 2)[:5], *texts(20, 1)[:4]]
    card = run({"a": {"train": write(tmp_path / "train", train), "val": write(tmp_path / "val", texts(10, 3)),
                      "test": write(tmp_path / "test", test)}}, tmp_path / "out")
    assert stored(tmp_path / "out", "test") == test
    assert stored(tmp_path / "out", "val") == texts(10, 3)
    assert stored(tmp_path / "out", "train") == texts(50, 2)
    assert card["steps"]["exact_duplicates"]["documents"] == 5 + 4
    assert card["split"]["published"] == ["val", "test"] and card["splits"]["test"]["documents"] == len(test)


def test_limits_count_what_they_drop(tmp_path):
    train = [*texts(40), ("", "no source"), ("  ", "nor here"), ("x", "y" * 20), ("ab" * 60, "cd" * 60), ("one", "two")]
    limits = {"max_chars": 100, "max_ratio": 5, "min_chars": 2}
    card = run({"a": write(tmp_path / "p", train)}, tmp_path / "out", pair_limits=limits)
    assert {name: n["documents"] for name, n in card["steps"]["dropped"].items()} == {
        "empty": 2, "min_chars": 1, "max_chars": 1, "max_ratio": 0
    }
    assert card["steps"]["read"]["documents"] == 45 and card["steps"]["kept"]["documents"] == 41
    kept = sum((stored(tmp_path / "out", part) for part in ("train", "val", "test")), [])
    assert sorted(kept) == sorted([*texts(40), ("one", "two")])


def test_without_published_splits_pairs_go_by_their_source_and_stay_there(tmp_path):
    """One source with several targets is on one side of a split; adding pairs moves none."""
    first = [(f"Frage {i // 3}", f"Antwort {i}") for i in range(600)]
    run({"a": write(tmp_path / "a", first)}, tmp_path / "one")
    run({"a": write(tmp_path / "a", [*texts(300), *first])}, tmp_path / "two")
    where = []
    for out in (tmp_path / "one", tmp_path / "two"):
        where.append({pair: part for part in ("train", "val", "test") for pair in stored(out, part)})
    assert all(where[1][pair] == part for pair, part in where[0].items())
    by_source = {}
    for (source, _), part in where[0].items():
        by_source.setdefault(source, set()).add(part)
    assert all(len(parts) == 1 for parts in by_source.values())
    shares = [sum(p == part for p in where[0].values()) / 600 for part in ("train", "val", "test")]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.06)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "tsv without header", "parquet", "jsonl.gz"])
def test_tables(tmp_path, kind):
    pairs = [*texts(60), ('with "quotes"', "and, commas")]
    path = tmp_path / f"pairs.{kind.split()[0]}"
    rows = [{"id": i, "question": source, "answer": target} for i, (source, target) in enumerate(pairs)]
    keys = {"source_key": "question", "target_key": "answer"}
    if kind.startswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in [*rows, {"id": 1, "question": "no answer"}]) + "{broken\n" + "[" * 100_000 + "\n"
        (gzip.open if kind.endswith("gz") else open)(path, "wt", encoding="utf-8").write(text)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        head = [] if "without" in kind else ["id\tquestion\tanswer"]
        path.write_text("\n".join([*head, *(f"{r['id']}\t{r['question']}\t{r['answer']}" for r in rows)]))
        keys = {"source_key": "1", "target_key": "2"} if not head else keys
    card = run({"a": {"path": str(path), **keys}}, tmp_path / "out")
    assert sorted(sum((stored(tmp_path / "out", p) for p in ("train", "val", "test")), [])) == sorted(pairs)
    if kind.startswith("jsonl"):
        assert card["steps"]["repaired"]["rows not JSON"] == 2 and card["steps"]["dropped"]["empty"]["documents"] == 1


def test_one_tokenizer_learns_both_sides_of_the_training_pairs(tmp_path):
    files = {part: write(tmp_path / part, [(f"{word} und", f"{word} and") for word in words])
             for part, words in (("train", ["mouse"] * 1 + WORDS), ("test", ["Xylophon"] * 9), ("val", ["Yacht"]))}
    prepare(recipe.Data(pairs={"a": files}), recipe.Tokenizer(kind="chars"), tmp_path / "out")
    known = set(load(tmp_path / "out" / "tokenizer").tree["model"]["vocab"])
    assert {"u", "m", "a"} < known and not {"X", "Y"} & known


def test_nothing_is_done_twice_and_a_change_is_noticed(tmp_path):
    pairs = {"a": write(tmp_path / "a", texts(60))}
    first = run(pairs, tmp_path / "out")
    data, tokenizer = recipe.Data(pairs=pairs), recipe.Tokenizer(kind="bytes")
    assert up_to_date(data, tokenizer, tmp_path / "out") and run(pairs, tmp_path / "out") == first
    assert not up_to_date(recipe.Data(pairs=pairs, pair_limits={"max_ratio": 2}), tokenizer, tmp_path / "out")
    write(tmp_path / "a", texts(61))
    assert not up_to_date(data, tokenizer, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def bad(tmp_path, **change) -> str:
    """The one line that a bad source gets; and nothing is left behind."""
    files = {**write(tmp_path / "a", texts(60)), **change}
    with pytest.raises(RequestError) as caught:
        run({"a": {key: value for key, value in files.items() if value}}, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    return str(caught.value)


def test_what_bad_files_get(tmp_path):
    (tmp_path / "short.en").write_text("one\ntwo\n")
    (tmp_path / "empty.en").write_text("")
    (tmp_path / "table.csv").write_text("question,answer\nq,a\n")
    (tmp_path / "rows.jsonl").write_text('{"q": "x", "a": "y"}\n')
    (tmp_path / "binary.en").write_bytes(b"\0\1\2" * 100)
    (tmp_path / "cut.en.gz").write_bytes(gzip.compress(b"text\n" * 1000)[:-20])
    one = {"source": None, "target": None}
    assert "a.de.gz has 60 lines and" in (line := bad(tmp_path, target=str(tmp_path / "short.en"))) and "short.en 2: line N" in line
    assert "gone.en: no such file (data.pairs.a.train)" in bad(tmp_path, target=str(tmp_path / "gone.en"))
    assert "empty.en: the file is empty" in bad(tmp_path, target=str(tmp_path / "empty.en"))
    assert "binary.en: a binary file, not text" in bad(tmp_path, target=str(tmp_path / "binary.en"))
    assert "cut.en.gz: damaged compressed file" in bad(tmp_path, target=str(tmp_path / "cut.en.gz"))
    assert "not a file" in bad(tmp_path, target=str(tmp_path))
    assert "no column 'source'; its columns are question, answer: set source_key" in bad(tmp_path, path=str(tmp_path / "table.csv"), **one)
    assert "no row has text under both 'source' and 'target'; found q, a" in bad(tmp_path, path=str(tmp_path / "rows.jsonl"), **one)
    assert "short.en: pairs in one file are read from .jsonl" in bad(tmp_path, path=str(tmp_path / "short.en"), **one)


def test_too_few_pairs_for_a_part_are_said(tmp_path):
    with pytest.raises(RequestError, match=r"data.pairs: 2 pairs leave nothing for .* \(a fraction of 0.1\); give more pairs"):
        run({"a": write(tmp_path / "a", texts(2))}, tmp_path / "out")
    with pytest.raises(RequestError, match="no pair is left after cleaning; dropped by empty 2 pairs"):
        run({"a": write(tmp_path / "a", [("", "x"), ("y", "")])}, tmp_path / "out")


def test_the_output_may_not_hold_the_pairs(tmp_path):
    (tmp_path / "out" / "train").mkdir(parents=True)
    with pytest.raises(RequestError, match="lies in the output"):
        (tmp_path / "out" / "data.json").write_text('{"fingerprint": ""}')
        run({"a": write(tmp_path / "out" / "train" / "a", texts(60))}, tmp_path / "out")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_text_in_two_bytes_a_character_is_refused_by_name(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Кот спит\nДа\n".encode(encoding))
    (tmp_path / "b.txt").write_text("The cat sleeps\nYes\n")
    listing = list_pairs(recipe.PairFiles(source=str(tmp_path / "a.txt"), target=str(tmp_path / "b.txt")), "data.pairs")
    with pytest.raises(RequestError, match="a.txt: (UTF-16 text|a binary file)"):
        list(read_pairs(listing, Counter()))
