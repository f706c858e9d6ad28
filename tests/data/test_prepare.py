"""`prepare` as a whole: every document is accounted for, the result is whole or absent, the same whatever the number
of workers, and bad input is one clear line."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmwright import recipe
from llmwright.data import prepare as module
from llmwright.data.prepare import fingerprint, prepare, up_to_date
from llmwright.data.shards import DataDir
from llmwright.errors import RequestError
from llmwright.progress import Progress
from llmwright.tokens.load import load

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
BYTES = recipe.Tokenizer(kind="bytes")


def story(i, n=60):
    rng = random.Random(i)
    return " ".join(f"{rng.choice('abcdefghij')}{rng.randrange(10**6)}word" for _ in range(n)) + "\n"


def write(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i:04d}.txt").write_text(text)
    return str(folder)


def stored(directory, source=None):
    """Every document's text by split, from the shards alone."""
    data, tokenizer, out = DataDir.open(directory), load(directory / "tokenizer"), {}
    for part in data.card["splits"]:
        out[part] = []
        if not data.card["splits"][part]["shards"]:
            continue
        split = data.split(part)
        split.verify()
        for name in [source] if source else split.sources:
            for i in range(split.source(name).n_documents):
                tokens = split.document(name, i)
                assert tokens[0] == data.card["bos_id"]
                out[part].append(tokenizer.decode(tokens[1:]))
    return out


def files(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_every_document_is_in_one_split_or_counted_as_dropped(tmp_path):
    texts = [story(i) for i in range(200)]
    odd = [texts[3], texts[5].replace("word\n", "ward\n"), "too short", "1234567890 " * 20, story(999)]
    corpus = write(tmp_path / "in", texts + odd)
    card = prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out")
    got = stored(tmp_path / "out")
    assert sorted(sum(got.values(), [])) == sorted(texts + odd[-1:])
    steps = card["steps"]
    assert steps["read"]["documents"] == 205
    assert steps["exact_duplicates"] == {"documents": 1, "bytes": len(texts[3])}
    assert steps["near_duplicates"] == {"documents": 1, "bytes": len(texts[5])}
    assert steps["dropped"]["min_chars"] == {"documents": 1, "bytes": 9}
    assert steps["dropped"]["min_letter_share"] == {"documents": 1, "bytes": 220}
    assert steps["kept"]["documents"] == 201 and steps["overlap"]["documents"] == 0
    for part, texts in got.items():
        split = card["splits"][part]
        assert split["documents"] == len(texts) > 5
        assert split["bytes"] == sum(len(t.encode()) for t in texts)
        assert split["tokens"] == split["bytes"] + len(texts)
    assert json.loads((tmp_path / "out" / "data.json").read_text()) == card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["data.json", "test", "tokenizer", "train", "val"]


def test_training_documents_that_repeat_the_evaluation_text_are_dropped_and_named(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(100)])
    plain = prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "plain")
    evaluated = stored(tmp_path / "plain")["test"][0]
    passage = " ".join(evaluated.split()[20:33])
    leak = None
    for i in range(1000, 1020):  # a document that quotes 13 words, and falls to the training text
        write(tmp_path / "in2", [story(j) for j in range(100)] + [story(i) + passage + " and more.\n"])
        card = prepare(recipe.Data(corpus=str(tmp_path / "in2")), BYTES, tmp_path / "out")
        leak = card["steps"]["overlap"]
        if leak["documents"]:
            break
    assert leak["documents"] == 1 and leak["examples"] == [{"name": "0100.txt", "source": "in2", "shares": passage}]
    assert not any(passage in text for text in stored(tmp_path / "out")["train"])
    assert card["splits"]["train"]["documents"] == plain["splits"]["train"]["documents"]
    kept = prepare(recipe.Data(corpus=str(tmp_path / "in2"), overlap_tokens=0), BYTES, tmp_path / "kept")
    assert any(passage in text for text in stored(tmp_path / "kept")["train"])
    assert kept["steps"]["overlap"]["documents"] == 0


def test_the_result_is_the_same_for_any_number_of_workers(tmp_path, monkeypatch):
    from llmwright.data import read

    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(read, "BATCH", 20_000)
    write(tmp_path / "in", [story(i) for i in range(150)])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": story(i)}) + "\n" for i in range(100, 300)))
    corpus = {"b": str(tmp_path / "in"), "a": str(tmp_path / "rows.jsonl")}
    tokenizer = recipe.Tokenizer(vocab_size=400)
    results = []
    for workers in (1, 3):
        prepare(recipe.Data(corpus=corpus, workers=workers), tokenizer, tmp_path / f"{workers}")
        results.append(files(tmp_path / f"{workers}"))
    monkeypatch.setattr(module, "SMALL", 10**9)
    prepare(recipe.Data(corpus=corpus), tokenizer, tmp_path / "none")
    assert results[0] == results[1] == files(tmp_path / "none")
    assert {"train/a-00000.tokens", "train/b-00000.tokens"} <= results[0].keys()


def test_a_second_run_does_nothing_and_a_change_makes_it_again(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    data, out = recipe.Data(corpus=corpus), tmp_path / "out"
    assert not up_to_date(data, BYTES, out)
    first = prepare(data, BYTES, out)
    assert first["fingerprint"] == fingerprint(data, BYTES) and up_to_date(data, BYTES, out)
    stamp = (out / "data.json").stat().st_mtime_ns
    assert prepare(data, BYTES, out) == first and (out / "data.json").stat().st_mtime_ns == stamp
    assert up_to_date(recipe.Data(corpus=corpus, workers=7), BYTES, out)
    assert not up_to_date(recipe.Data(corpus=corpus, near_duplicates=None), BYTES, out)
    assert not up_to_date(data, recipe.Tokenizer(kind="chars"), out)
    (tmp_path / "in" / "new.txt").write_text(story(1000))
    assert not up_to_date(data, BYTES, out)
    second = prepare(data, BYTES, out)
    assert second["steps"]["read"]["documents"] == 61


def test_adding_documents_moves_none_between_splits(tmp_path):
    write(tmp_path / "in", [story(i) for i in range(80)])
    data = recipe.Data(corpus=str(tmp_path / "in"))
    prepare(data, BYTES, tmp_path / "out")
    before = stored(tmp_path / "out")
    write(tmp_path / "in" / "a", [story(i) for i in range(500, 560)])
    prepare(data, BYTES, tmp_path / "out")
    after = stored(tmp_path / "out")
    assert all(set(before[part]) <= set(after[part]) for part in before)


def test_three_documents_give_every_split_some_text_and_it_is_said(tmp_path):
    texts = [story(i) for i in range(3)]
    card = prepare(recipe.Data(corpus=write(tmp_path / "in", texts)), BYTES, tmp_path / "out")
    assert card["split"] == {"rule": "tail", "fractions": [0.8, 0.1, 0.1], "asked": "hash",
                             "why": "3 documents are too few for a split by document"}
    got = stored(tmp_path / "out")
    assert [a + b + c for a, b, c in zip(*got.values())] == texts
    assert [len(text) for text in got["train"]] == [int(0.8 * len(text)) for text in texts]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_tinyshakespeare_is_one_document_cut_where_the_convention_cuts(tmp_path):
    path = SHARED / "tinyshakespeare" / "input.txt"
    data = recipe.Data(corpus=str(path), split="tail", fractions=(0.9, 0.1, 0.0))
    card = prepare(data, recipe.Tokenizer(kind="chars"), tmp_path / "out")
    text = path.read_text()
    assert stored(tmp_path / "out") == {"train": [text[: int(0.9 * len(text))]], "val": [text[int(0.9 * len(text)) :]],
                                        "test": []}
    assert sum(card["splits"][part]["tokens"] for part in card["splits"]) == len(text) + 2


def test_a_given_tokenizer_is_used_and_saved(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    prepare(recipe.Data(corpus=corpus), recipe.Tokenizer(vocab_size=300), tmp_path / "one")
    given = recipe.Tokenizer(path=str(tmp_path / "one" / "tokenizer"))
    prepare(recipe.Data(corpus=corpus), given, tmp_path / "two")
    assert load(tmp_path / "one" / "tokenizer").fingerprint == load(tmp_path / "two" / "tokenizer").fingerprint
    assert stored(tmp_path / "one") == stored(tmp_path / "two")


def test_a_tokenizer_with_another_token_for_the_end_has_it_behind_every_document(tmp_path):
    """BERT's [CLS] … [SEP]: a model that is trained on documents reads texts as it will be given them."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijword0123456789", *(f"##{c}" for c in "abcdefghijword0123456789")]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    prepare(recipe.Data(corpus=corpus), recipe.Tokenizer(path=str(tmp_path / "vocab.txt")), tmp_path / "out")
    split = DataDir.open(tmp_path / "out").split("train")
    for i in range(split.n_documents):
        document = split.document("in", i)
        assert document[0] == 2 and document[-1] == 3 and (document[1:-1] > 4).all()


def test_a_published_tokenizer_without_the_tokens_an_objective_needs_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\n")
    corpus, path = write(tmp_path / "in", [story(i) for i in range(60)]), str(tmp_path / "vocab.txt")
    for wanted, said in (({"mask": True}, "has no mask token, which train.objective masked needs"),
                         ({"sentinels": 100}, "has no sentinels")):
        with pytest.raises(RequestError, match=said):
            prepare(recipe.Data(corpus=corpus), recipe.Tokenizer(path=path, **wanted), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_learns_from_training_text_only_and_from_a_bounded_sample(tmp_path):
    texts = [story(i) + chr(0x4E00 + i) + "\n" for i in range(120)]
    corpus = write(tmp_path / "in", texts)
    prepare(recipe.Data(corpus=corpus), recipe.Tokenizer(kind="chars"), tmp_path / "out")
    marks = {text[-2] for text in stored(tmp_path / "out")["train"]}
    known = set(load(tmp_path / "out" / "tokenizer").tree["model"]["vocab"])
    assert 60 < len(marks) < 120 and {c for c in known if len(c) == 1 and ord(c) >= 0x4E00} == marks
    small = recipe.Tokenizer(kind="chars", sample_bytes=len(texts[0].encode()) * 20)
    prepare(recipe.Data(corpus=corpus), small, tmp_path / "small")
    sampled = [c for c in load(tmp_path / "small" / "tokenizer").tree["model"]["vocab"] if ord(c[0]) >= 0x4E00]
    assert 5 < len(sampled) <= 21


def untouched(tmp_path, before):
    return files(tmp_path / "out") == before and not [p for p in tmp_path.iterdir() if "llmwright" in p.name]


def test_whatever_goes_wrong_the_old_directory_stays(tmp_path, monkeypatch):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out")
    before = files(tmp_path / "out")
    (tmp_path / "x.txt").touch()
    with pytest.raises(RequestError, match="x.txt"):
        prepare(recipe.Data(corpus=[corpus, str(tmp_path / "x.txt")]), BYTES, tmp_path / "out")
    assert untouched(tmp_path, before)
    with pytest.raises(RequestError, match="vocab_size"):
        prepare(recipe.Data(corpus=corpus), recipe.Tokenizer(vocab_size=60_000), tmp_path / "out")
    assert untouched(tmp_path, before)
    (tmp_path / "rows.jsonl").write_text(f"not json\n{'[' * 100_000}\n")  # and one nested too deep
    with pytest.raises(RequestError, match="rows.jsonl.*no document is left.*rows not JSON: 2"):
        prepare(recipe.Data(corpus=str(tmp_path / "rows.jsonl")), BYTES, tmp_path / "out")
    assert untouched(tmp_path, before)


def test_a_corpus_that_cleaning_empties_says_which_filters_took_it(tmp_path):
    corpus = write(tmp_path / "in", ["short", "1234567890 " * 20])
    with pytest.raises(RequestError) as error:
        prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out")
    assert str(error.value) == (f"{corpus}: no document is left after cleaning; dropped by min_chars 1 document "
                                "(5 bytes); min_letter_share 1 document (220 bytes)")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_data_directory_is_not_replaced(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    with pytest.raises(RequestError, match="not a data directory"):
        prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "in")
    assert len(files(tmp_path / "in")) == 60


def test_the_output_inside_the_corpus_is_not_part_of_it(tmp_path):
    write(tmp_path, [story(i) for i in range(60)])
    data = recipe.Data(corpus=str(tmp_path))
    prepare(data, BYTES, tmp_path / "out")
    assert up_to_date(data, BYTES, tmp_path / "out")


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path):
    """Under a limit on the size of files, which fails writes as a full disk does."""
    corpus = write(tmp_path / "in", [story(i) for i in range(300)])
    code = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
            "from llmwright import recipe; from llmwright.data.prepare import prepare; "
            f"prepare(recipe.Data(corpus={corpus!r}), recipe.Tokenizer(kind='bytes'), {str(tmp_path / 'out')!r})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "WorkError" in done.stderr and str(tmp_path / "out") in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_killed_at_any_instant_leaves_no_half_directory_and_the_next_run_cleans_up(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    code = ("from llmwright import recipe; from llmwright.data.prepare import prepare; print(1, flush=True); "
            f"prepare(recipe.Data(corpus={corpus!r}), recipe.Tokenizer(kind='bytes'), {str(tmp_path / 'out')!r})")
    for wait in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out").exists() or stored(tmp_path / "out")
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_folders_of_the_user_beside_the_output_stay(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    theirs = ["out.old-999999", "out.tmp-999999", ".out.llmwright-999999", ".o[u]t.llmwright-999999"]
    for name in theirs:
        write(tmp_path / name, ["mine"])
    left = tmp_path / ".out.llmwright-999998"  # of a run of ours that was killed
    write(left, ["half"])
    (left / module.MARK).touch()
    bracketed = tmp_path / ".o[u]t.llmwright-999998"
    write(bracketed, ["half"])
    (bracketed / module.MARK).touch()
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out")
    assert all((tmp_path / name / "0000.txt").read_text() == "mine" for name in theirs)
    assert not left.exists() and bracketed.exists()
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "o[u]t")
    assert not bracketed.exists()


def test_a_corpus_inside_the_output_is_refused(tmp_path):
    prepare(recipe.Data(corpus=write(tmp_path / "in", [story(i) for i in range(60)])), BYTES, tmp_path / "de")
    raw = write(tmp_path / "de" / "raw", [story(i) for i in range(60, 120)])
    (tmp_path / "link").symlink_to(raw)
    for corpus in (raw, f"{raw}/0000.txt", str(tmp_path / "link")):
        with pytest.raises(RequestError, match="besides the data|lies in the output"):
            prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "de")
    (tmp_path / "de" / "train" / "x.txt").write_text(story(1))
    (tmp_path / "de" / "raw").rename(tmp_path / "raw")
    with pytest.raises(RequestError, match="x.txt: lies in the output .*de, which is replaced as a whole"):
        prepare(recipe.Data(corpus=str(tmp_path / "de" / "train" / "x.txt")), BYTES, tmp_path / "de")


def test_a_data_directory_with_other_things_in_it_is_not_replaced(tmp_path):
    data = recipe.Data(corpus=write(tmp_path / "in", [story(i) for i in range(60)]))
    prepare(data, BYTES, tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(RequestError, match="out: holds thesis.tex besides the data, so it is not replaced"):
        prepare(recipe.Data(corpus=data.corpus["in"].path, near_duplicates=None), BYTES, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_an_output_through_a_link_fills_what_the_link_leads_to(tmp_path):
    data = recipe.Data(corpus=write(tmp_path / "in", [story(i) for i in range(60)]))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for rules in (data, recipe.Data(corpus=data.corpus["in"].path, near_duplicates=None)):
        prepare(rules, BYTES, tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and up_to_date(rules, BYTES, tmp_path / "link")
    assert stored(tmp_path / "real")["train"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "link", "real"]


def test_the_folder_one_stands_in_is_filled_and_stays_the_same_folder(tmp_path, monkeypatch):
    data = recipe.Data(corpus=write(tmp_path / "in", [story(i) for i in range(60)]))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for rules in (data, recipe.Data(corpus=data.corpus["in"].path, near_duplicates=None)):
        prepare(rules, BYTES, ".")
        assert (Path.cwd() / "data.json").samefile(tmp_path / "here" / "data.json") and up_to_date(rules, BYTES, ".")
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["data.json", "test", "tokenizer", "train", "val"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "in"]


@pytest.mark.parametrize("hurt", [
    lambda out: (out / "train" / "in-00000.tokens").unlink(), lambda out: (out / "val" / "in-00000.docs").write_bytes(b""),
    lambda out: (out / "tokenizer" / "tokenizer.json").unlink(), lambda out: (out / "data.json").write_text(
        json.dumps({**json.loads((out / "data.json").read_text()), "splits": {"train": {}}})),
], ids=["missing", "short", "tokenizer", "card"])
def test_a_directory_that_lost_a_file_is_not_up_to_date_and_is_made_again(tmp_path, hurt):
    data, out = recipe.Data(corpus=write(tmp_path / "in", [story(i) for i in range(60)])), tmp_path / "out"
    prepare(data, BYTES, out)
    before = files(out)
    hurt(out)
    assert not up_to_date(data, BYTES, out)
    prepare(data, BYTES, out)
    assert files(out) == before


def test_excluded_folders_are_no_part_of_the_corpus(tmp_path):
    write(tmp_path, [story(i) for i in range(60)])
    write(tmp_path / "runs" / "own", [story(i) for i in range(60, 70)])
    (tmp_path / "runs" / "kept.txt").write_text(story(99))
    data, out, run = recipe.Data(corpus=str(tmp_path)), tmp_path / "runs" / "own" / "data", tmp_path / "runs" / "own"
    card = prepare(data, BYTES, out, exclude=[run])
    assert card["steps"]["read"]["documents"] == 61
    (run / "samples.txt").write_text(story(100))
    assert up_to_date(data, BYTES, out, exclude=[run]) and not up_to_date(data, BYTES, out)
    assert fingerprint(data, BYTES, exclude=[str(run)]) == card["fingerprint"]


class Heard(Progress):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_files_of_other_kinds_are_told_in_one_line(tmp_path):
    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    for name in ("a.bin", "b.bin", "Makefile"):
        (tmp_path / "in" / name).write_text("x")
    heard = Heard()
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out", progress=heard)
    assert f"{corpus}: 3 files of other kinds left out (.bin, no ending)" in heard.lines


def test_much_overlap_and_little_evaluation_text_are_told(tmp_path):
    texts = [story(i) + " ".join(f"group{i // 6}shared{k}" for k in range(20)) + ".\n" for i in range(36)]
    heard, kept = Heard(), Heard()
    write(tmp_path / "in", texts)
    card = prepare(recipe.Data(corpus=str(tmp_path / "in")), BYTES, tmp_path / "out", progress=heard)
    gone, train = card["steps"]["overlap"], card["splits"]["train"]
    share = gone["bytes"] / (gone["bytes"] + train["bytes"])
    assert share > 0.2
    (line,) = [line for line in heard.lines if "overlap" in line]
    assert line.startswith(f"overlap with the evaluation text: {gone['documents']} training documents left out, ")
    assert f"{share:.1%} of the training text; that is much" in line
    for part in ("val", "test"):
        (line,) = [line for line in heard.lines if line.startswith(part)]
        n = card["splits"][part]["documents"]
        assert n < 20 and f" in {n} document{'s' * (n != 1)}: what is measured on less than 20,000 tokens or 5 documents" in line
    many = write(tmp_path / "many", [story(i, 1000) for i in range(80)])
    prepare(recipe.Data(corpus=many), BYTES, tmp_path / "enough", progress=kept)
    assert kept.lines == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_a_line_of_500_mb_is_cut_and_takes_little_memory(tmp_path):
    path = tmp_path / "line.txt"
    with open(path, "wb") as file:
        for i in range(500):
            file.write((b"%09d " % i) * 100_000)
    code = ("import resource; from llmwright import recipe; from llmwright.data.prepare import prepare\n"
            f"data = recipe.Data(corpus={str(path)!r}, clean=recipe.Clean(quality=False), near_duplicates=None)\n"
            f"card = prepare(data, recipe.Tokenizer(kind='bytes'), {str(tmp_path / 'out')!r})\n"
            "print(card['steps']['repaired']['cut inside a line'], card['steps']['kept']['bytes'])\n"
            # VmHWM, since a process's own ru_maxrss begins with what the process that started it held
            "own = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
            "print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    cuts, kept, peak = map(int, done.stdout.split())
    assert cuts >= 476 and kept <= 500_000_000 and peak < 500_000  # KB, the largest process
    path_rules = recipe.Data(corpus=str(path))
    with pytest.raises(RequestError, match="line.txt: no document is left after cleaning; dropped by max_line_chars"):
        prepare(path_rules, BYTES, tmp_path / "other")


def test_progress_is_counted_in_raw_bytes(tmp_path):
    from llmwright.progress import Progress, Task

    made = []

    class Watch(Progress):
        def task(self, name, total=None, unit=""):
            made.append(Task(name, total, unit))
            return made[-1]

    corpus = write(tmp_path / "in", [story(i) for i in range(60)])
    prepare(recipe.Data(corpus=corpus), BYTES, tmp_path / "out", progress=Watch())
    size = sum(p.stat().st_size for p in Path(corpus).iterdir())
    assert [(t.name, t.done, t.total) for t in made if t.unit == "B"][0] == ("reading and cleaning", size, size)
    assert all(t.done == t.total for t in made if t.total)
