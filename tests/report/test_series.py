"""Curves show what the metrics hold: no spike lost, no value invented."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmwright.report.curves import _log_ticks, _steps_axis, loss_figure, training
from llmwright.report.inputs import Missing, read_lines
from llmwright.report.series import column, smooth, thin

numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1, max_size=400), st.integers(4, 100))
def test_thinning_keeps_first_last_and_extremes_within_the_limit(values, limit):
    y = np.array(values)
    kept = thin(y, limit)
    assert kept[0] == 0 and kept[-1] == len(y) - 1
    assert (np.diff(kept) > 0).all()
    assert y[kept].max() == y.max() and y[kept].min() == y.min()
    assert len(kept) <= max(limit, 2)


def test_thinning_keeps_a_spike_of_one_step_in_a_million():
    y = np.ones(1_000_000)
    y[765_432] = 9
    assert 765_432 in thin(y) and len(thin(y)) <= 1200


@given(st.lists(numbers, min_size=1, max_size=60), st.integers(1, 20))
def test_smoothing_keeps_length_and_range_and_leaves_the_first_value(values, window):
    y = np.array(values)
    mean = smooth(y, window)
    slack = 1e-6 * np.abs(y).sum() + 1e-9  # a difference of running sums, in float64
    assert len(mean) == len(y) and mean.min() >= y.min() - slack and mean.max() <= y.max() + slack
    assert mean[0] == pytest.approx(y[0], abs=slack)


def test_smoothing_a_case_worked_by_hand():
    # window 3: the first value alone, then means of three, at the end of the two that are there
    assert smooth(np.array([6.0, 3, 0, 3, 6]), 3).tolist() == [6, 3, 2, 3, 4.5]


def test_a_line_cut_short_by_a_kill_is_left_out_and_the_rest_kept(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    assert [line["step"] for line in read_lines(file)] == [1, 2]


def test_a_skipped_step_leaves_a_gap_and_is_counted():
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None}, {"step": 3, "loss": math.nan}, {"step": 4, "loss": 2.0}]
    assert column(lines, "loss")[0].tolist() == [1, 4]
    assert training(lines)["skipped"] == 2
    json.dumps(training(lines), allow_nan=False)  # what reaches the page is valid JSON


def test_bits_per_byte_of_training_batches_use_the_validation_texts_ratio():
    # 2 nats a token are 2 / ln 2 = 2.885 bits; 0.9618 bits a byte then means 3 bytes a token: 3 nats → 1.4427 bits a byte
    lines = [{"step": 1, "loss": 3.0}, {"step": 1, "val_loss": 2.0, "val_bpb": 2 / math.log(2) / 3}]
    train = [t for t in loss_figure(lines)["data"] if t["meta"] == "byte" and t["name"] == "train"]
    assert train[0]["y"] == [pytest.approx(3 / math.log(2) / 3, abs=1e-4)]


def test_growing_batches_are_marked_where_they_grew():
    sizes = [(1, 8, 64), (2, 8, 64), (3, 4, 128), (4, 4, 128)]
    lines = [{"step": s, "loss": 3.0, "batch": b, "context": c} for s, b, c in sizes]
    layout = loss_figure(lines)["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [3]
    assert layout["annotations"][0]["text"] == "4 × 128 tokens"


@given(st.integers(1, 10**7))
def test_an_axis_of_steps_has_a_few_round_ticks(last):
    axis = _steps_axis(last)
    assert axis["dtick"] == int(axis["dtick"]) and 1 <= last / axis["dtick"] <= 5
    assert last < 5 or last / axis["dtick"] >= 2 - 1e-9


@given(st.floats(1e-6, 1e3), st.floats(10, 1e9))
def test_a_logarithmic_axis_has_more_than_one_tick_and_few(low, factor):
    ticks = _log_ticks(low, low * factor)["tickvals"]
    assert 2 <= len(ticks) <= 8 and all(low <= tick <= low * factor for tick in ticks)
    assert _log_ticks(low, low * 9) is None and _log_ticks(0, 1) is None


def test_a_single_measurement_is_a_mark_and_not_a_line_without_length():
    figure = loss_figure([{"step": 1, "loss": 3.0}, {"step": 1, "val_loss": 2.9}])
    assert all("markers" in trace["mode"] for trace in figure["data"])
    assert figure["best"] == {"step": 1, "loss": 2.9, "only": True}


def test_metrics_without_a_loss_are_missing_not_an_empty_plot():
    with pytest.raises(Missing, match="no loss"):
        loss_figure([{"step": 1, "lr": 0.1}])
