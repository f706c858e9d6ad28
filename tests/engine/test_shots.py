"""A task shown in the prompt: what the prompt says, and what a file may hold."""

from pathlib import Path

import pytest

from llmwright.engine.shots import Shots, load
from llmwright.errors import RequestError

TASK = '''
instruction: Say whether a review is positive or negative.
format: "Review: {input}\\nSentiment: {output}"
examples:
  - {input: I loved it., output: yes}
  - {input: "{output} is a bad name", output: no}
'''


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "task.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name
    return write


def test_zero_one_and_few_shots_are_the_same_prompt_with_more_examples(file):
    task = load(file(TASK))
    instruction, question = "Say whether a review is positive or negative.", "Review: Dull.\nSentiment:"
    shots = ["Review: I loved it.\nSentiment: yes", "Review: {output} is a bad name\nSentiment: no"]
    for n in (0, 1, 2):
        assert task.prompt("Dull.\n", n) == "\n\n".join([instruction, *shots[:n], question])
    assert task.prompt("Dull.") == task.prompt("Dull.", 2)  # all of them
    with pytest.raises(RequestError, match="n_shots 3: it must be from 0 to 2"):
        task.prompt("Dull.", 3)


def test_a_plain_text_with_one_place_is_the_whole_prompt(file):
    assert load(file("translate to French: {input}\n", "t.txt")).prompt("a {dog}") == "translate to French: a {dog}"
    assert load(file("Q: {input}\nA:\n", "t.txt")).separator is None


def test_a_task_may_be_as_little_as_its_examples(file):
    task = load(file('{"examples": [{"input": "2 + 2", "output": "4"}], "separator": "\\n---\\n"}', "t.json"))
    assert task.prompt("3 + 3") == "Input: 2 + 2\nOutput: 4\n---\nInput: 3 + 3\nOutput:"
    assert Shots().prompt("x") == "Input: x\nOutput:"


@pytest.mark.parametrize("text, said", [
    ("examples: [{input: a}]", r"examples\[0\] has no output"),
    ("examples: [{input: a, output: b}, {output: b}]", r"examples\[1\] has no input"),
    ("examples: [{input: a, output: b, answer: c}]", r"examples\[0\] has a field answer"),
    ("examples: [a]", r"examples\[0\] must be"), ("examples: a", "examples must be a list"),
    ("examples: [{input: [a], output: b}]", r"examples\[0\].input must be text"),
    ("format: '{output} because {input}'", "{output} before {input}"),
    ("format: 'Q {input}'", "format has no {output}"),
    ("format: 'A {output}'", "format has no {input}"), ("separator: ''", "separator is empty"),
    ("instruction: [1]", "instruction must be text"), ("prompt: x", "prompt is not a field"), ("[1, 2]", "not a task"),
    ("examples: [", "not valid YAML at line 1"), ("a: b: c", "not valid YAML"),
])
def test_a_mistake_in_the_file_is_named(file, text, said):
    with pytest.raises(RequestError, match=said) as caught:
        load(file(text))
    assert "\n" not in str(caught.value) and "task.yaml" in str(caught.value)


def test_a_file_that_is_no_task_is_named(file, tmp_path):
    with pytest.raises(RequestError, match="no {input} in it"):
        load(file("Q: what?", "t.txt"))
    with pytest.raises(RequestError, match="no such file"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(RequestError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="not UTF-8"):
        load(tmp_path / "b.yaml")


def test_the_shipped_task_is_one():
    task = load(Path(__file__).parents[2] / "recipes" / "shots" / "sentiment.yaml")
    assert len(task.examples) == 3 and task.prompt("Dull.").endswith("Review: Dull.\nSentiment:")
