"""ERK and uniform densities, and both decays, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.counting.erk import erk_densities, layer_densities
from repro.counting.schedule import UpdateSchedule


def test_erk_by_hand() -> None:
    # raw densities 20/100 = 0.2 and 50/400 = 0.125; 0.5 * 500 = 250 = f * (20 + 50): f = 3.5714
    assert erk_densities({"a": (10, 10), "b": (10, 40)}, 0.5) == pytest.approx({"a": 5 / 7, "b": 25 / 56})


def test_a_layer_that_would_pass_one_is_dense_and_the_rest_is_solved_again() -> None:
    # a: 4 weights, raw 1; b: 100, raw 0.2. f = 52 / 24 > 1 for a, so a is dense and b has 52 - 4 = 48 of 100.
    assert erk_densities({"a": (2, 2), "b": (10, 10)}, 0.5) == pytest.approx({"a": 1.0, "b": 0.48})


shapes = st.dictionaries(
    st.text("ab", min_size=1, max_size=4), st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=8
)


@given(shapes, st.floats(0.01, 1.0))
def test_the_total_is_the_density_whatever_the_layers(layers: dict[str, tuple[int, int]], density: float) -> None:
    total = sum(math.prod(shape) for shape in layers.values())
    for distribution in ("erk", "uniform", "global"):
        densities = layer_densities(distribution, layers, density)
        assert all(0 < value <= 1 for value in densities.values())
        assert sum(densities[name] * math.prod(shape) for name, shape in layers.items()) == pytest.approx(
            density * total
        )


def test_decays_by_hand() -> None:
    schedule = UpdateSchedule(interval=10, end=80, total=100)
    assert schedule.exchanged_fraction("as_paper", 0.5, 0) == 0.5
    assert schedule.exchanged_fraction("as_paper", 0.5, 40) == pytest.approx(0.25)
    assert schedule.exchanged_fraction("as_paper", 0.5, 20) == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert schedule.exchanged_fraction("as_paper", 0.5, 80) == pytest.approx(0)
    assert schedule.exchanged_fraction("as_paper", 0.5, 99) == pytest.approx(0)
    assert schedule.exchanged_fraction("as_released", 0.5, 0) == 0.5
    assert schedule.exchanged_fraction("as_released", 0.5, 50) == pytest.approx((0.5 + 0.005) / 2)
    assert schedule.exchanged_fraction("as_released", 0.5, 100) == pytest.approx(0.005)


def test_no_mask_changes_from_t_end_on() -> None:
    schedule = UpdateSchedule(interval=10, end=80, total=100)
    assert [update for update in range(1, 101) if schedule.is_due(update)] == [10, 20, 30, 40, 50, 60, 70]
    assert (schedule.count, schedule.last) == (7, 70)
    assert UpdateSchedule(interval=200, end=80, total=100).last == 0
