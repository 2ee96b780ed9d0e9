"""Statistics against hand-worked values and properties."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_records import write_record

from repro.errors import UserError
from repro.report.collect import collect
from repro.report.comparison import compare
from repro.report.statistics import paired_differences, summarise
from repro.rows import Table

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


def test_the_frame_tells_best_from_last_and_pairs_gains_by_seed(table: Table, tmp_path: Path) -> None:
    rows = {row.id: row for row in table.rows}
    dense, sparse = rows["deit_tiny/dense"], rows["deit_tiny/s2vite-30"]
    # Seed 2 has no dense run, so that there are two pairs: -2 and -1; their mean is -1.5, s = 1/sqrt(2).
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
    compared = compare(table, sparse.id, dense.id, "paper", [0, 1, 2], tmp_path)
    assert dict(compared.by_seed) == {0: -2.0, 1: -1.0}
    assert not compared.is_decided
    with pytest.raises(UserError, match="takes one on each side"):
        compare(table, "deit_tiny/*", dense.id, "paper", [0], tmp_path)
