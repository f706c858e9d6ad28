"""What a person sees while work runs, by hand."""

import pytest

from llmwright.progress import Lines, Progress, amount, clock


@pytest.mark.parametrize("value, unit, shown", [
    (512, "B", "512 B"), (12_300_000, "B", "12.3 MB"), (3_000_000_000, "B", "3.0 GB"),
    (1234, "steps", "1,234 steps"), (1_640_000, "tokens", "1.64M tokens"), (0.5, "", "0.50"),
])
def test_amounts_are_readable(value, unit, shown):
    assert amount(value, unit) == shown


@pytest.mark.parametrize("seconds, shown", [(5, "5s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_the_rate_leaves_resumed_work_out():
    task = Progress().task("t", total=100)
    task.resume_at(50)
    task.started -= 10
    task.advance(20)
    assert task.rate == pytest.approx(2.0, rel=0.01) and task.done == 70


def test_the_time_left_counts_the_work_after_the_last_unit():
    task = Progress().task("training", total=100, unit="steps")
    task.started -= 10
    task.advance(20)
    assert "0:40 left" in task.describe() or "40s left" in task.describe()
    task.after = 30
    assert "1:10 left" in task.describe()


def test_lines_say_the_end_and_a_failure(capsys):
    with Lines().task("cleaning", total=10, unit="documents") as task:
        task.advance(10, kept=9)
    with pytest.raises(ValueError), Lines().task("reading"):
        raise ValueError
    shown = capsys.readouterr()
    assert shown.out == ""  # stdout is for results
    assert "cleaning: 10 documents" in shown.err and "kept 9" in shown.err and "done in 0s" in shown.err
    assert "reading: 0  stopped" in shown.err
