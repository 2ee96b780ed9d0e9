"""Where a row stands among the points of accuracy against MACs: by what is published of it, and by what is counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro.report.costs import KEPT_AS_PLANNED, KEPT_ELSEWHERE
from repro.rows import Row


@dataclass(frozen=True)
class Point:
    """A point of a panel: MACs in 1e9 per image, accuracy in percent, and the uncertainty of either (0: none known)."""

    macs_g: float
    top1_pct: float
    macs_error_g: float = 0.0
    top1_error_pct: float = 0.0


def published_point(line: Mapping[str, Any], row: Row) -> Point | None:
    """Where a row's published values put it; None without a published accuracy.

    The MACs follow from the published saving by the figure convention, or by the table convention where the two agree
    for this row; else they are the published MACs where they do; else the counted ones. Those that a run has measured
    of other images, or that are only planned, say nothing of the published point: it is not drawn then.
    """
    top1 = row.best_published("top1_pct")
    if top1 is None:
        return None
    dense_g = line["macs_g"] / (1 - line["flops_saving_pct"] / 100)
    saving = row.best_published("flops_saving_alt_pct")
    conventions_agree = math.isclose(line["flops_saving_pct"], line["flops_saving_alt_pct"], abs_tol=1e-6)
    if saving is None and conventions_agree:
        saving = row.best_published("flops_saving_pct")
    macs = row.best_published("macs_g")
    if saving is None and conventions_agree and macs is not None:
        return Point(macs.value, top1.value, macs.uncertainty, top1.uncertainty)
    if saving is None:
        rests_on_data = line["cost_note"] in (KEPT_ELSEWHERE, KEPT_AS_PLANNED)
        return None if rests_on_data else Point(counted_macs_g(line), top1.value, 0.0, top1.uncertainty)
    macs_g = dense_g * (1 - saving.value / 100)
    return Point(macs_g, top1.value, dense_g * saving.uncertainty / 100, top1.uncertainty)


def counted_macs_g(line: Mapping[str, Any]) -> float:
    """A row's MACs by the figure convention, in 1e9 per image."""
    dense_g = line["macs_g"] / (1 - line["flops_saving_pct"] / 100)
    return float(dense_g * (1 - line["flops_saving_alt_pct"] / 100))
