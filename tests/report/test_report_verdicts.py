"""Verdicts: worked by hand for individual cells, and their properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repro.report.verdicts import DECIDABLE, judge, tolerance, training_state
from repro.tables.rows import Metric, PublishedValue

TOP1 = Metric("top1_pct", "Top-1 (%)", 0.2, "training", "test")
PARAMS = Metric("params_m", "Params (M)", 0.02, "analysis", "test")
TIME = Metric("time_saving_pct", "Time saving (%)", 2.0, "device", "test")


def published(value: float, uncertainty: float = 0.0, metric: str = "top1_pct") -> PublishedValue:
    return PublishedValue(metric, value, uncertainty, "confirmed", "test")


@pytest.mark.parametrize(
    ("measured", "std", "uncertainty", "verdict"),
    [
        (80.38, 0.1, 0.0, "reproduced"),  # exactly 0.2 away; 1.96*0.1/sqrt(3) = 0.113 is less
        (80.39, 0.1, 0.0, "above"),
        (79.97, 0.1, 0.0, "below"),
        (80.50, 0.3, 0.0, "reproduced"),  # 1.96*0.3/sqrt(3) = 0.3395
        (80.53, 0.3, 0.0, "above"),
        (80.53, 0.3, 0.03, "reproduced"),  # 0.3395 + 0.03 = 0.3695
        (79.95, 0.1, 0.03, "reproduced"),  # exactly 0.2 + 0.03 away
        (79.94, 0.1, 0.03, "below"),
    ],
)
def test_accuracy_at_paper_scale(measured: float, std: float, uncertainty: float, verdict: str) -> None:
    assert judge(measured, published(80.18, uncertainty), TOP1, n=3, std=std) == verdict


def test_one_seed_of_three_decides_nothing() -> None:
    assert training_state(1, "done", 3, is_published_training=True) == "partial (1 of 3)"
    assert training_state(3, "done", 3, is_published_training=True) == DECIDABLE


def test_one_value_is_held_to_the_metrics_own_tolerance() -> None:
    assert tolerance(published(80.18, 0.03), TOP1, 1, None) == pytest.approx(0.23)


@pytest.mark.parametrize(
    ("n", "run_state", "is_published_training", "state"),
    [
        (2, "partial (2 of 3)", True, "partial (2 of 3)"),
        (0, "running", True, "running"),
        (0, "requeued", True, "running"),
        (0, "submitted", True, "running"),
        (0, "failed", True, "failed"),
        (0, "missing", True, "missing"),
        (0, "planned", True, "missing"),
        (0, "cancelled", True, "missing"),
        (0, "interrupted", True, "missing"),
        (3, "done", False, "other scale"),
        (1, "partial (1 of 3)", False, "other scale"),
        (0, "failed", False, "failed"),
    ],
)
def test_states_of_training(n: int, run_state: str, is_published_training: bool, state: str) -> None:
    assert training_state(n, run_state, 3, is_published_training=is_published_training) == state


def test_a_count_and_a_time_are_judged_without_seeds() -> None:
    for measured, verdict in ((14.601364, "reproduced"), (14.68, "above"), (14.5, "below")):
        assert judge(measured, published(14.6, 0.05, "params_m"), PARAMS) == verdict
    saving = published(22.7, 0.1, "time_saving_pct")
    assert judge(24.7, saving, TIME, n=7, interval=(24.0, 24.75)) == "reproduced"
    assert judge(24.7, saving, TIME, n=7, interval=(24.0, 24.9)) == "undecided"
    assert judge(36.0, saving, TIME, n=7, interval=(35.0, 37.0)) == "above"
    assert judge(24.7, saving, TIME, n=3, interval=(-math.inf, math.inf)) == "undecided"


numbers = st.floats(-100, 100)
spreads = st.none() | st.floats(0, 5)


@given(numbers, numbers, st.floats(0, 2), spreads, st.integers(1, 9))
def test_reproduced_exactly_within_the_tolerance(
    measured: float, value: float, uncertainty: float, std: float | None, n: int
) -> None:
    allowed = max(0.2, 0.0 if std is None else 1.96 * std / math.sqrt(n)) + uncertainty
    distance = abs(measured - value)
    assume(abs(distance - allowed) > 1e-6)
    verdict = judge(measured, published(value, uncertainty), TOP1, n=n, std=std)
    assert (verdict == "reproduced") == (distance <= allowed)
    assert verdict in ("reproduced", "above", "below")


@given(numbers, st.floats(-20, 20), spreads)
def test_above_and_below_mirror_each_other(value: float, distance: float, std: float | None) -> None:
    assume(abs(abs(distance) - tolerance(published(value), TOP1, 3, std)) > 1e-6)
    there = judge(value + distance, published(value), TOP1, n=3, std=std)
    back = judge(value - distance, published(value), TOP1, n=3, std=std)
    assert back == {"above": "below", "below": "above"}.get(there, there)


@given(numbers, numbers, st.floats(0, 2), st.floats(0, 2))
def test_less_certain_is_never_stricter(measured: float, value: float, less: float, more: float) -> None:
    low, high = sorted((less, more))
    if judge(measured, published(value, low), TOP1, n=3, std=0.1) == "reproduced":
        assert judge(measured, published(value, high), TOP1, n=3, std=0.1) == "reproduced"
