"""Verdicts: worked by hand, cell by cell, and by their properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repro.report.verdicts import judge, tolerance
from repro.rows import Metric, PublishedValue

TOP1 = Metric("top1_pct", "Top-1 (%)", 0.2, "training", "test")
PARAMS = Metric("params_m", "Params (M)", 0.02, "analysis", "test")
TIME = Metric("time_saving_pct", "Time saving (%)", 2.0, "device", "test")
PAPER: dict[str, Any] = {"n": 3, "std": 0.1, "state": "done", "scale": "paper", "seeds": 3}


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
    assert judge(measured, published(80.18, uncertainty), TOP1, **{**PAPER, "std": std}) == verdict


def test_one_seed_of_three_decides_nothing() -> None:
    words = judge(80.3, published(80.18), TOP1, n=1, std=None, state="done", scale="paper", seeds=3)
    assert words == "partial (1 of 3)"


def test_one_value_is_held_to_the_metrics_own_tolerance() -> None:
    assert tolerance(published(80.18, 0.03), TOP1, 1, None) == pytest.approx(0.23)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"n": 2, "state": "partial (2 of 3)"}, "partial (2 of 3)"),
        ({"n": 0, "state": "running"}, "running"),
        ({"n": 0, "state": "requeued"}, "running"),
        ({"n": 0, "state": "submitted"}, "running"),
        ({"n": 0, "state": "failed"}, "failed"),
        ({"n": 0, "state": "missing"}, "missing"),
        ({"n": 0, "state": "planned"}, "missing"),
        ({"n": 0, "state": "cancelled"}, "missing"),
        ({"n": 0, "state": "interrupted"}, "missing"),
        ({"scale": "local"}, "other scale"),
        ({"scale": "smoke"}, "other scale"),
        ({"scale": "local", "n": 1, "state": "partial (1 of 3)"}, "other scale"),
        ({"scale": "local", "n": 0, "state": "failed"}, "failed"),
    ],
)
def test_states_of_training(changes: dict[str, Any], verdict: str) -> None:
    measured = None if changes.get("n") == 0 else 80.18
    assert judge(measured, published(80.18), TOP1, **{**PAPER, **changes}) == verdict


@pytest.mark.parametrize("state", ["missing", "failed", "running", "done"])
@pytest.mark.parametrize("scale", ["smoke", "local", "paper"])
def test_a_count_is_decided_whatever_trains(state: str, scale: str) -> None:
    value = published(14.6, 0.05, "params_m")
    for measured, verdict in ((14.601364, "reproduced"), (14.68, "above"), (14.5, "below")):
        assert judge(measured, value, PARAMS, n=0, std=None, state=state, scale=scale, seeds=3) == verdict


def test_time_waits_for_a_stopwatch_and_is_decided_at_every_scale() -> None:
    value = published(22.7, 0.1, "time_saving_pct")
    assert judge(None, value, TIME, **PAPER) == "not measured"
    assert judge(24.7, value, TIME, **{**PAPER, "scale": "local", "std": None}) == "reproduced"
    assert judge(36.0, value, TIME, **{**PAPER, "scale": "local", "std": None}) == "above"


def test_nothing_published_comes_first() -> None:
    for metric in (TOP1, PARAMS, TIME):
        assert judge(None, None, metric, n=0, std=None, state="failed", scale="local", seeds=3) == "no published value"


def test_a_hole_in_the_frame_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no measured value"):
        judge(None, published(14.6), PARAMS, **PAPER)


numbers = st.floats(-100, 100)
spreads = st.none() | st.floats(0, 5)


@given(numbers, numbers, st.floats(0, 2), spreads, st.integers(1, 9))
def test_reproduced_exactly_within_the_tolerance(
    measured: float, value: float, uncertainty: float, std: float | None, n: int
) -> None:
    allowed = max(0.2, 0.0 if std is None else 1.96 * std / math.sqrt(n)) + uncertainty
    distance = abs(measured - value)
    assume(abs(distance - allowed) > 1e-6)
    verdict = judge(measured, published(value, uncertainty), TOP1, n=n, std=std, state="done", scale="paper", seeds=n)
    assert (verdict == "reproduced") == (distance <= allowed)
    assert verdict in ("reproduced", "above", "below")


@given(numbers, st.floats(-20, 20), spreads)
def test_above_and_below_mirror_each_other(value: float, distance: float, std: float | None) -> None:
    assume(abs(abs(distance) - tolerance(published(value), TOP1, 3, std)) > 1e-6)
    there = judge(value + distance, published(value), TOP1, **{**PAPER, "std": std})
    back = judge(value - distance, published(value), TOP1, **{**PAPER, "std": std})
    assert back == {"above": "below", "below": "above"}.get(there, there)


@given(numbers, numbers, st.floats(0, 2), st.floats(0, 2))
def test_less_certain_is_never_stricter(measured: float, value: float, less: float, more: float) -> None:
    low, high = sorted((less, more))
    if judge(measured, published(value, low), TOP1, **PAPER) == "reproduced":
        assert judge(measured, published(value, high), TOP1, **PAPER) == "reproduced"
