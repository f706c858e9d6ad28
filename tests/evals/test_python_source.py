"""The share of completions that parse: what counts, what does not, and that no text stops the process."""

import ast
import sysconfig
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from llmwright.evals.python_source import check_python, completion_parses, prompt

PROMPT = '"""A module."""\n\nimport os\n\n\n'


@pytest.mark.parametrize("completion, parses", [
    ("x = 1\ny = 2\nz = (", True),  # the last line is unfinished
    ("x = 1", False),  # nothing whole is left
    ("x = 1\n", True),
    ("# a comment\n\n# another\n", False),  # no code
    ("x = = 1\ny = 2\n", False),
    ("x = 1\ny = = 2\nz", False),
    ("def f(a):\n    return a\n\ndef g(b):\n    c = b +", True),  # its body is still to come
    ("class A:\n    def f(self):\n        if self:\n            x", True),
    ("x = 1\ny = 2\nz = [\n    1,\n    2,\n", True),  # an open bracket, shorter than what is kept
    ("x = 1\nz = [\n    1,\n    2,\n    3,\n", True),
    ("x = f(a, [b, {c:\n  d,\n", True),
    ("x = 1\ny = 2\nz = 3\nw = [a +\n", True),  # cannot be closed: dropped, being shorter than what is kept
    ("x = 1\nw = [a +\nb +\n", False),  # cannot be closed, and hides more than is kept
    ("x = 1\nw = [a b\nc d\ne f\n", False),
    ("def f(\n    a,\n", False),  # cannot be closed, and there is nothing else
    ("class A:\n    '''Says\n    what it is.\n", True),
    ('class A:\n    r"""Says\n    what it is.\n', True),
    ("try:\n    f('''a\nb\n", True),
    ("x = 1\ns = '''\nlong\n", True),
    ("def f():\n    try:\n        x = 1\n        y", True),  # an open try
    ("try:\n    x = 1\nexcept OSError:\n    y = 2\nfoo", True),
    ("try:\n    try:\n        x = 1\n    finally:\n        y = 2\n    z", True),
    ("try:\n    x = 1\ny = 2\n", False),  # closed without an except
    ("@property\n", True),
    ("class A:\n    x = 1\n    @property\n    def", True),
    ("def f():\n    x = 1\n  y = 2\n", False),  # dedent to nowhere
    ("  x = 1\n", False),
    ("if x:\ny = 1\n", False),
    ("x = 'open\ny = 1\n", False),
    ("return = 3\n", False),
    ("for i in range(3):\n    print(i)\nelse:\n", True),
    ("lambda: 3\nx = {'a':\n", True),
    ("x = 1 \\\n", True),
    ("x = \\\n", False),
])
def test_a_completion_is_judged_as_the_beginning_of_a_program(completion, parses):
    assert completion_parses(PROMPT, completion, finished=False) is parses


@pytest.mark.parametrize("completion, parses", [
    ("x = 1", True), ("x = (", False), ("def f():\n", False), ("", False), ("# only this", False),
])
def test_a_text_the_model_ended_is_judged_whole(completion, parses):
    assert completion_parses(PROMPT, completion, finished=True) is parses


HOSTILE = [
    "(" * 100_000, "-" * 100_000 + "1", "not " * 50_000 + "x", "x" + ".a" * 60_000, "[" * 5000 + "]" * 5000, "\0",
    "x = '\\d'", "lambda: " * 20_000 + "x", "x = " + "9" * 5000, "\ud800",
    "if 1:\n" + "".join(" " * i + "if 1:\n" for i in range(1, 200)),
    "\f\r\v", "1" + "+1" * 50_000, "a" * 10**6, "match x:\n case " + "[" * 500,
]


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.filterwarnings("error")
def test_hostile_text_is_answered(source):
    for text in (source, source + "\n", source + "\nx = 1\n"):
        assert check_python([text])[0] in (True, False)
        assert completion_parses(PROMPT, text, False) in (True, False)
        assert completion_parses(PROMPT, text, True) in (True, False)


PARTS = ["def a():\n", "try:\n", "if a:\n", "else:\n", "\n    ", "\n        ", "'''"]
BODIES = ["", *(f"{' ' * c}pass\n" for c in range(1, 40)), *(f"{' ' * c}def _(): pass\n" for c in range(0, 40, 2))]
CLOSERS = [q + "".join(b) + "\n" for q in ("", "'''", '"""') for n in range(4) for b in product(")]", repeat=n)]
FINALLY = ["", *(f"{' ' * c}finally: pass\n" for c in range(13)), "    finally: pass\nfinally: pass\n"]
ENDS = [a + b for a in BODIES + CLOSERS for b in FINALLY]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(list("ab1 \n\t:='\"()[]#@\\,+.") + PARTS), max_size=30).map("".join))
def test_what_counts_is_the_beginning_of_a_program(text):
    """Never says yes where none of the endings makes a program of whole lines of the completion."""
    if completion_parses(PROMPT, text, False):
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        assert any(_parses(PROMPT + "".join(lines[:n]) + end) for n in range(len(lines), 0, -1) for end in ENDS)


def _parses(source):
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def test_real_source_nearly_always_counts():
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    counted = []
    for file in files:
        source = file.read_text(encoding="utf-8", errors="replace")
        start = prompt(source)
        if start:
            counted.append(completion_parses(start, source[len(start) :][:500], False))
    # the rest end within a statement that cannot be closed and is longer than all before it
    assert len(counted) > 80 and sum(counted) / len(counted) > 0.95


def test_source_with_one_character_changed_for_the_worse_does_not_count():
    source = (Path(sysconfig.get_path("stdlib")) / "textwrap.py").read_text()
    start = prompt(source)
    rest = source[len(start) :][:9000]
    assert completion_parses(start, rest, False)
    at = rest.index("def ", 200)
    assert not completion_parses(start, rest[:at] + "daf " + rest[at + 4 :], False)


def test_a_prompt_is_whole_statements_before_a_line_of_code():
    source = '"""' + "long docstring\n" * 20 + '"""\n\nimport os\n\nx = 1\n'
    start = prompt(source)
    assert source.startswith(start) and ast.parse(start)
    assert source[len(start) :] == "import os\n\nx = 1\n"
    assert prompt("import os\n") is None  # too short
    assert prompt("Not Python, but a text that goes on.\n" * 40) is None
    assert prompt("# a comment\n" * 100) is None
    assert prompt('"""' + "docstring\n" * 200 + '"""\nx = 1\n') is None  # too long before it parses
