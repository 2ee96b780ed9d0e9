"""Confidence intervals of accuracies, for the sampling error of a finite test set and of a few seeds.

One seed has no spread, but its accuracy is a proportion of a known number of test images, which is enough for an
interval. Several seeds give another, Student's t (`repro.report.statistics`). More seeds do not make the test set
larger, so the interval of an accuracy is the wider of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist, fmean

from repro.config import Data
from repro.report.statistics import LEVEL, mean_interval, paired_differences


def n_test_images(data: Data) -> int | None:
    """Return the number of test images behind an accuracy; None if the data set does not state it."""
    return data.limit_test or data.test_images


def wilson_interval(accuracy_pct: float, images: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval (low, high), in percent, of an accuracy on `images` test images.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = accuracy_pct / 100
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def newcombe_interval(
    accuracy_pct: float, reference_pct: float, images: int, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval (low, high) of `accuracy_pct - reference_pct`, in percentage points.

    This is the hybrid score interval for two independent proportions (Newcombe, Statistics in Medicine 1998, method
    10). It ignores that both accuracies are measured on the same `images` test images, so it is wider than a paired
    interval, which would need per-image predictions.
    """
    low, high = wilson_interval(accuracy_pct, images, level)
    reference_low, reference_high = wilson_interval(reference_pct, images, level)
    difference = accuracy_pct - reference_pct
    below = math.hypot(accuracy_pct - low, reference_high - reference_pct)
    above = math.hypot(high - accuracy_pct, reference_pct - reference_low)
    return difference - below, difference + above


def accuracy_interval(by_seed: Mapping[int, float], images: int | None) -> tuple[float, float] | None:
    """Return the interval (low, high) of a mean accuracy, in percent: Wilson or Student's t, the wider at each end.

    None if neither is available: one seed and a test set of unknown size.
    """
    known = _of_seeds(by_seed)
    if images is not None:
        known.append(wilson_interval(fmean(by_seed.values()), images))
    return _widest(known, 0.0, 100.0)


def gain_interval(
    by_seed: Mapping[int, float], reference: Mapping[int, float], images: int | None, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the interval (low, high) of a mean gain paired by seed, in percentage points.

    Newcombe or Student's t, the wider at each end; None if neither is available.
    """
    known = _of_seeds(paired_differences(by_seed, reference), level)
    if images is not None:
        both = by_seed.keys() & reference.keys()
        own, other = (fmean(values[seed] for seed in both) for values in (by_seed, reference))
        known.append(newcombe_interval(own, other, images, level))
    return _widest(known, -100.0, 100.0)


def _of_seeds(by_seed: Mapping[int, float], level: float = LEVEL) -> list[tuple[float, float]]:
    return [mean_interval(by_seed.values(), level)] if len(by_seed) > 1 else []


def _widest(intervals: list[tuple[float, float]], least: float, most: float) -> tuple[float, float] | None:
    if not intervals:
        return None
    return max(least, min(low for low, _ in intervals)), min(most, max(high for _, high in intervals))
