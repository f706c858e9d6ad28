"""Cleaning: what is repaired, what is dropped and under which name."""

import unicodedata
from collections import Counter

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.data.clean import _MOJIBAKE, clean, decode, documents, letter_share, repair
from llmwright.recipe import Clean

PROSE = "The quick brown fox jumps over the lazy dog, and then it rests.\n"


def repaired(text, **rules):
    counts = Counter()
    return repair(text, Clean(**rules), counts)[0], counts


def dropped_by(text, **rules):
    counts = Counter()
    kept = clean(text, Clean(**rules), counts)
    names = [name for name in counts if not name.endswith(" bytes")]
    assert bool(kept) != bool(names)
    return names[0] if names else None


@pytest.mark.parametrize("good", ["café – naïve “quotes” 10 €", "Äpfel, Öl und Übermut", "œuvre à la crème"])
@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252"])
def test_mojibake_is_repaired(good, encoding):
    bad = good.encode().decode(encoding)
    fixed, counts = repaired(f"line one\n{bad}\nline three")
    assert fixed == f"line one\n{good}\nline three" and counts["mojibake"] == 1


@given(st.text(st.characters(min_codepoint=0xA0, max_codepoint=0x24FF, exclude_categories=["Cn", "Cs"]), max_size=20))
def test_the_cheap_test_misses_no_mojibake_of_latin_1(text):
    bad = text.encode().decode("latin-1")
    if text and ftfy.fix_encoding(bad) == text != bad:
        assert _MOJIBAKE.search(bad)


@pytest.mark.parametrize("text", ["Größe", "Îles, âne", "русский текст", "中文和日本語", "Ελληνικά", "déjà – vu"])
def test_good_text_is_left_alone(text):
    assert repaired(text) == (text, Counter())


@given(st.text())
def test_repaired_text_is_normal_utf_8_without_controls_and_repairing_it_again_changes_nothing(text):
    out, data = repair(text, Clean(), Counter())
    assert data.decode() == out and unicodedata.is_normalized("NFC", out)
    assert not [c for c in out if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert repair(out, Clean(), Counter())[0] == out or _MOJIBAKE.search(out)  # mojibake twice over takes two runs


def test_line_ends_controls_and_form():
    assert repaired("a\r\nb\rc\x00\x0c\x1b[0m\td\x85")[0] == "a\nb\nc[0m\td"
    assert repaired("e\u0301")[0] == "é"
    assert repaired("e\u0301\x07", unicode=False, control_characters=False)[0] == "e\u0301\x07"


def test_half_a_surrogate_pair_from_json_does_not_stop_anything():
    text, counts = repaired("broken \ud83d pair")
    assert text == "broken \ufffd pair" and counts["surrogates"] == 1


@pytest.mark.parametrize("data, text", [
    ("plain größer".encode(), "plain größer"),
    ("\ufeffwith a mark".encode(), "with a mark"),
    ("Grüße, Größe".encode("cp1252"), "Grüße, Größe"),
    ("Grüße".encode("utf-16"), "Grüße"),
    ("größer, weiß, ".encode() + b"\xff end", "größer, weiß, \ufffd end"),
])
def test_bytes_that_are_not_utf_8_are_repaired_and_counted(data, text):
    counts = Counter()
    assert decode(data, counts) == text
    try:
        data.decode()
        assert not counts
    except UnicodeDecodeError:
        assert counts["not UTF-8"] == 1


def test_each_filter_drops_its_own_and_is_counted_under_its_name():
    assert dropped_by(PROSE) is None
    assert dropped_by("short") == "min_chars"
    assert dropped_by(" \n" * 100) == "min_chars"
    assert dropped_by(PROSE * 2000 + "x" * 100_001) == "max_line_chars"
    assert dropped_by("0123456789 +-*/ " * 20) == "min_letter_share"
    assert dropped_by(PROSE * 10) == "max_repeated_line_share"
    for text in ("0123456789 +-*/ " * 20, PROSE * 10, "x" * 100_001):
        assert dropped_by(text, quality=False) is None


def test_thresholds_are_exact():
    lines = "".join(f"line number {i} of the text\n" for i in range(4))
    text = lines + "line number 0 of the text\n" * 6  # 6 of 10 repeat
    assert dropped_by(text, max_repeated_line_share=0.6) is None
    assert dropped_by(text, max_repeated_line_share=0.59) == "max_repeated_line_share"
    assert dropped_by("a" * 25 + "1" * 75, min_letter_share=0.25) is None
    assert dropped_by("a" * 24 + "1" * 76, min_letter_share=0.25) == "min_letter_share"
    assert dropped_by("a" * 40, min_chars=40) is None and dropped_by("a" * 40, min_chars=41) == "min_chars"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_letter_share_counts_letters_and_marks_of_every_script(text):
    letters = sum(unicodedata.category(c)[0] in "LM" for c in text)
    others = sum(c not in " \t\n\r\f\v" for c in text)
    assert letter_share(text, text.encode()) == pytest.approx(letters / max(others, 1))


def test_counts_hold_bytes_and_long_documents_are_cut():
    counts = Counter()
    clean("shört", Clean(), counts)
    assert counts == {"min_chars": 1, "min_chars bytes": 6}
    kept = clean(PROSE * 3, Clean(max_chars=50, max_repeated_line_share=1), Counter())
    assert "".join(text for text, _ in kept) == PROSE * 3 and max(len(text) for text, _ in kept) == 50
    assert all(text.encode() == data for text, data in kept)


def test_stories_parted_by_endoftext_lines_are_documents_of_their_own():
    assert documents("one\n<|endoftext|>\ntwo\n<|endoftext|>\n") == ["one\n", "two\n"]
    assert documents('code with "<|endoftext|>" inside') == ['code with "<|endoftext|>" inside']
