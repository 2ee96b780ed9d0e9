"""Statistics against hand-worked values and properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.report.statistics import paired_differences, summarise

accuracies = st.floats(0, 100, allow_nan=False)


def test_three_seeds_by_hand() -> None:
    # mean 80; deviations -1, 0, 1; s = sqrt(2/2) = 1; t(2, 97.5 %) = 4.302653; half = 4.302653/sqrt(3) = 2.484138
    found = summarise([79.0, 80.0, 81.0])
    assert (found.n, found.mean, found.std) == (3, 80.0, 1.0)
    assert found.low == pytest.approx(80 - 2.484138, abs=1e-6)
    assert found.high == pytest.approx(80 + 2.484138, abs=1e-6)


def test_two_seeds_by_hand() -> None:
    # s = 0.2/sqrt(2); t(1, 97.5 %) = 12.7062; half = 12.7062 * 0.1 = 1.27062
    found = summarise([80.0, 80.2])
    assert found.std == pytest.approx(0.1414214, abs=1e-6)
    assert found.high == pytest.approx(80.1 + 1.27062, abs=1e-4)


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    one, none = summarise([80.0]), summarise([])
    assert (one.n, one.mean, one.std, one.low, one.high) == (1, 80.0, None, None, None)
    assert (none.n, none.mean, none.std, none.low, none.high) == (0, None, None, None, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        summarise([80.0, bad])


def test_differences_are_paired_by_seed() -> None:
    found = paired_differences({2: 81.0, 0: 80.5, 5: 1.0}, {0: 80.0, 2: 80.25, 3: 9.0})
    assert found == {0: 0.5, 2: 0.75}
    assert list(found) == [0, 2]


@given(st.lists(accuracies, min_size=2, max_size=20), st.floats(-50, 50))
def test_shift_moves_the_mean_and_keeps_the_spread(sample: list[float], shift: float) -> None:
    here, there = summarise(sample), summarise([value + shift for value in sample])
    assert here.mean is not None
    assert there.mean == pytest.approx(here.mean + shift, abs=1e-9)
    assert there.std == pytest.approx(here.std, abs=1e-6)


@given(st.lists(accuracies, min_size=2, max_size=20))
def test_the_interval_holds_the_mean_and_the_order_does_not_matter(sample: list[float]) -> None:
    found = summarise(sample)
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    assert found.low <= found.mean <= found.high
    assert summarise(reversed(sample)).std == pytest.approx(found.std)


@given(st.dictionaries(st.integers(0, 9), accuracies), st.dictionaries(st.integers(0, 9), accuracies))
def test_pairing_is_antisymmetric(one: dict[int, float], other: dict[int, float]) -> None:
    there, back = paired_differences(one, other), paired_differences(other, one)
    assert there == {seed: -difference for seed, difference in back.items()}
