"""An answer on a terminal: broken at words, as it comes; code, lists and scripts without spaces as they should be."""

import re

from hypothesis import given, strategies as st
from rich.cells import cell_len

from llmwright.cli.wrap import Wrap


def wrapped(text: str, columns: int = 30, step: int = 3) -> str:
    out = []
    made = Wrap(out.append, lambda: columns)
    for at in range(0, len(text), step):
        made.put(text[at : at + step])
    made.end()
    return "".join(out)


TEXT = st.text(st.sampled_from([*"abcdefg, .\n é你好🙂-*1"]), max_size=300)


@given(text=TEXT, columns=st.integers(6, 60), step=st.integers(1, 50))
def test_nothing_is_lost_and_no_line_is_too_long_but_for_a_long_word(text, columns, step):
    shown = wrapped(text, columns, step)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", text)
    for line in shown.split("\n"):
        words = re.findall(r"[^\s你好🙂]+|[你好🙂]", line)
        assert cell_len(line.rstrip()) < columns or len(words) == 1


@given(text=TEXT, columns=st.integers(6, 60), first=st.integers(1, 50), second=st.integers(1, 50))
def test_how_the_text_came_does_not_matter(text, columns, first, second):
    assert wrapped(text, columns, first) == wrapped(text, columns, second)


def test_words_are_whole_and_paragraphs_stay():
    assert wrapped("the quick brown fox jumps over\n\nthe lazy dog", 16) == (
        "the quick brown\nfox jumps over\n\nthe lazy dog")


def test_a_word_is_shown_when_it_is_over_and_the_rest_at_the_end():
    out = []
    made = Wrap(out.append, lambda: 30)
    made.put("two wor")
    assert "".join(out) == "two"
    made.put("ds ")
    assert "".join(out) == "two words"
    made.put("more")
    made.end()
    assert "".join(out) == "two words more"


def test_the_lines_of_a_list_item_are_indented():
    shown = wrapped("1. one two three four\n  - five six seven", 14)
    assert shown == "1. one two\n   three four\n  - five six\n    seven"


def test_code_is_left_alone():
    code = "```python\ndef f(x):    # a comment that is far too long for the terminal\n\treturn  x\n```"
    assert wrapped(f"so:\n{code}\nand on it goes with words", 16) == f"so:\n{code}\nand on it goes\nwith words"


def test_scripts_without_spaces_break_anywhere():
    assert wrapped("你好世界你好世界", 9) == "你好世界\n你好世界"


def test_empty_lines_at_both_ends_are_left_out_and_nothing_steers_the_terminal():
    assert wrapped("\n\n  Hello\x1b[2J\x07\x9b31m\r you\n\n\n") == "Hello[2J31m you"


def test_a_terminal_that_changes_is_asked_each_time():
    out, columns = [], [40]
    made = Wrap(out.append, lambda: columns[0])
    made.put("one two three four ")
    columns[0] = 10
    made.put("five six seven eight ")
    assert "".join(out) == "one two three four\nfive six\nseven\neight"
