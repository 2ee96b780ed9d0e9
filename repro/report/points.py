"""The position of a row in a figure, from its published values or from what was counted and measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro.counting.cost import Cost
from repro.report.binomial import accuracy_interval, n_test_images
from repro.report.cells import RowCells
from repro.report.costs import KEPT_AS_PLANNED, KEPT_ELSEWHERE, cost_note
from repro.report.measures import interval_of_gain
from repro.tables.rows import Row


@dataclass(frozen=True)
class Point:
    """A row in a panel. `y_low` and `y_high` are the ends of the interval of `y`, equal to `y` if there is none."""

    row: Row
    x: float
    y: float
    y_low: float
    y_high: float
    x_error: float = 0.0


def published_points(row: RowCells) -> list[Point]:
    """Return a row's published points: accuracies (percent) against MACs (1e9 per image).

    There is one point, and for the dense row another for each source that differs by more than the uncertainty of
    both; none without a published accuracy.
    The MACs follow from the published saving in the figure convention, or in the table convention if the two agree for
    this row. Otherwise, they are the published MACs if the two agree, else the counted MACs. A point is omitted if its
    MACs would be those of a run on other images, or only planned.
    """
    macs = _published_macs(row)
    best = row.row.best_published("top1_pct")
    if macs is None or best is None:
        return []
    values = [best]
    if row.context.reference is not None and row.context.reference.row == row.row:
        others = [value for value in row.row.published if value.metric == best.metric]
        values += [other for other in others if abs(other.value - best.value) > other.uncertainty + best.uncertainty]
    return [
        Point(row.row, macs[0], one.value, one.value - one.uncertainty, one.value + one.uncertainty, macs[1])
        for one in values
    ]


def measured_point(row: RowCells, x: float) -> Point | None:
    """Return the mean best-epoch accuracy over seeds with its 95 % interval; None without a finished run."""
    measured = row.measured["top1_pct"]
    if measured.value is None:
        return None
    interval = accuracy_interval(measured.sample, n_test_images(row.evidence.config.data))
    return Point(row.row, x, measured.value, *(interval or (measured.value, measured.value)))


def gain_point(row: RowCells, x: float) -> Point | None:
    """Return the mean gain over the dense row with its 95 % interval; None without a pair of finished runs."""
    gain, reference = row.measured["top1_gain_pct"], row.context.reference
    if gain.value is None or reference is None:
        return None
    interval = interval_of_gain(row.evidence, reference)
    return Point(row.row, x, gain.value, *(interval or (gain.value, gain.value)))


def counted_macs_g(cost: Cost) -> float:
    """Return MACs in the figure convention (attention products of removed heads are credited), in 1e9 per image."""
    return _dense_macs_g(cost) * (1 - cost.flops_saving_alt_pct / 100)


def _published_macs(row: RowCells) -> tuple[float, float] | None:
    """Return the MACs of published points and their uncertainty, in 1e9 per image; None if they are unknown."""
    cost, published = row.context.cost, row.row.best_published
    saving, macs = published("flops_saving_alt_pct"), published("macs_g")
    if math.isclose(cost.flops_saving_pct, cost.flops_saving_alt_pct, abs_tol=1e-6):
        saving = saving or published("flops_saving_pct")
        if saving is None and macs is not None:
            return macs.value, macs.uncertainty
    if saving is not None:
        dense_g = _dense_macs_g(cost)
        return dense_g * (1 - saving.value / 100), dense_g * saving.uncertainty / 100
    return None if cost_note(row.context) in (KEPT_ELSEWHERE, KEPT_AS_PLANNED) else (counted_macs_g(cost), 0.0)


def _dense_macs_g(cost: Cost) -> float:
    return cost.macs_g / (1 - cost.flops_saving_pct / 100)
