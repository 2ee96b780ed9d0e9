"""Statistics against hand-worked values and properties."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_records import collect, write_record
from scipy.stats import binom

from repro.report.cells import TRAINED, Measured
from repro.report.statistics import mean_interval, median_interval, paired_differences
from repro.tables.rows import Table

accuracies = st.floats(0, 100, allow_nan=False)


def test_three_seeds_by_hand() -> None:
    # mean 80; deviations -1, 0, 1; s = sqrt(2/2) = 1; t(2, 97.5 %) = 4.302653; half-width 4.302653/sqrt(3) = 2.484138
    assert mean_interval([79.0, 80.0, 81.0]) == pytest.approx((80 - 2.484138, 80 + 2.484138), abs=1e-6)


def test_two_seeds_by_hand() -> None:
    # s = 0.2/sqrt(2); t(1, 97.5 %) = 12.7062; half = 12.7062 * 0.1 = 1.27062
    assert mean_interval([80.0, 80.2])[1] == pytest.approx(80.1 + 1.27062, abs=1e-4)


def test_differences_are_paired_by_seed() -> None:
    found = paired_differences({2: 81.0, 0: 80.5, 5: 1.0}, {0: 80.0, 2: 80.25, 3: 9.0})
    assert found == {0: 0.5, 2: 0.75}
    assert list(found) == [0, 2]


def test_the_mean_of_pairs_by_hand() -> None:
    # differences 0.2, 0.3, 0.4: mean 0.3, s = 0.1, half = 4.302653 * 0.1 / sqrt(3)
    pairs = paired_differences({0: 80.2, 1: 82.3, 2: 84.4}, {2: 84.0, 0: 80.0, 1: 82.0})
    found = Measured(TRAINED, 0.3, pairs, is_paired=True)
    assert found.std == pytest.approx(0.1)
    assert (found.n, found.seeds) == (3, "paired by 3 seeds")
    assert found.interval() == pytest.approx((0.3 - 0.248414, 0.3 + 0.248414), abs=1e-6)
    # two-sided t(2) at 98.75 %, for one of four tests
    assert found.interval(0.9875) == pytest.approx((0.3 - 0.5115, 0.3 + 0.5115), abs=2e-4)


def test_one_seed_has_no_spread_and_no_seed_no_mean() -> None:
    found = Measured(TRAINED, 80.0, {0: 80.0})
    assert (found.n, found.std, found.seeds) == (1, None, "1 seed")
    assert found.interval() == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


WITHOUT_END = (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("n", "ends"),
    [(1, WITHOUT_END), (5, WITHOUT_END), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (15, (4, 12)), (21, (6, 16))],
)
def test_the_interval_of_a_median_by_the_tables(n: int, ends: tuple[float, float]) -> None:
    assert median_interval(reversed(range(1, n + 1))) == ends


@given(st.integers(6, 60))
def test_it_is_the_narrowest_that_covers(n: int) -> None:
    low, high = median_interval(range(1, n + 1))
    assert low + high == n + 1
    assert 1 - 2 * binom.cdf(low - 1, n, 0.5) >= 0.95 - 1e-12
    if low + 1 < high - 1:
        assert 1 - 2 * binom.cdf(low, n, 0.5) < 0.95


@given(st.lists(accuracies, min_size=2, max_size=20), st.floats(-50, 50))
def test_shift_moves_the_mean_and_keeps_the_spread(sample: list[float], shift: float) -> None:
    here, there = mean_interval(sample), mean_interval([value + shift for value in sample])
    assert there == pytest.approx([end + shift for end in here], abs=1e-4)


@given(st.lists(accuracies, min_size=2, max_size=20))
def test_the_interval_holds_the_mean_and_the_order_does_not_matter(sample: list[float]) -> None:
    low, high = mean_interval(sample)
    assert low <= sum(sample) / len(sample) + 1e-9
    assert sum(sample) / len(sample) - 1e-9 <= high
    assert mean_interval(reversed(sample)) == pytest.approx((low, high))


@given(st.dictionaries(st.integers(0, 9), accuracies), st.dictionaries(st.integers(0, 9), accuracies))
def test_pairing_is_antisymmetric(one: dict[int, float], other: dict[int, float]) -> None:
    there, back = paired_differences(one, other), paired_differences(other, one)
    assert there == {seed: -difference for seed, difference in back.items()}


def test_the_frame_tells_best_from_last_and_pairs_gains_by_seed(table: Table, tmp_path: Path) -> None:
    rows = {row.id: row for row in table.rows}
    dense, sparse = rows["deit_tiny/dense"], rows["deit_tiny/s2vite-30"]
    # Seed 2 has no dense run, so there are two pairs, -2 and -1, with mean -1.5 and s = 1/sqrt(2).
    for seed, best in ((0, 72.0), (1, 73.0)):
        write_record(tmp_path, dense, "paper", seed, top1_best_pct=best, top1_last_pct=best - 1)
    for seed, best in ((0, 70.0), (1, 72.0), (2, 71.0)):
        write_record(tmp_path, sparse, "paper", seed, top1_best_pct=best, top1_last_pct=best - 0.5 * seed)
    frame = collect(table, [dense, sparse], "paper", [0, 1, 2], tmp_path).set_index("row")
    found = frame.loc[sparse.id]
    assert (found["top1_best_pct"], found["top1_last_pct"]) == (71.0, 70.5)
    assert (found["top1_std_pct"], found["top1_last_std_pct"]) == pytest.approx((1.0, math.sqrt(0.75)))
    # t(2, 97.5 %) = 4.302653; half = 4.302653 / sqrt(3)
    assert (found["top1_ci95_low_pct"], found["top1_ci95_high_pct"]) == pytest.approx((68.515862, 73.484138))
    assert (found["gain_n"], found["gain_pct"]) == (2, -1.5)
    assert found["gain_std_pct"] == pytest.approx(math.sqrt(0.5))
    # t(1, 97.5 %) = 12.7062; half = 12.7062 * 0.5
    assert found["gain_ci95_high_pct"] == pytest.approx(-1.5 + 6.3531, abs=1e-4)
    assert math.isnan(frame.loc[dense.id]["gain_pct"])
