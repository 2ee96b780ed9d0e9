"""Statistics over seeds and over the turns of a timing. Pure functions of numbers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping

LEVEL = 0.95  # default confidence level of all intervals


def mean_interval(values: Iterable[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the confidence interval (low, high) of a mean over seeds (Student's t); unbounded for a single value.

    Raises `ValueError` for no values.
    """
    sample = list(values)
    mean, n = statistics.fmean(sample), len(sample)
    if n == 1:
        return -math.inf, math.inf
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # imported late: it takes a quarter of a second

    half = float(stdtrit(n - 1, (1 + level) / 2)) * (statistics.stdev(sample) / math.sqrt(n))
    return mean - half, mean + half


def level_of_each(tests: int) -> float:
    """Return the confidence level of each of several tests that share an error of 5 % (Bonferroni correction)."""
    return 1 - (1 - LEVEL) / max(tests, 1)


def interval_words(ends: tuple[float, float], sign: str = "", digits: int = 2, level: float = LEVEL) -> str:
    """Format an interval: `95 % interval 79.93 to 80.43`; `sign` is `+` for differences."""
    low, high = ends
    return f"{100 * level:.4g} % interval {low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def paired_differences(minuend: Mapping[int, float], subtrahend: Mapping[int, float]) -> dict[int, float]:
    """Return the differences by seed, for the seeds that both have, in ascending order of the seeds.

    Pairing removes effects of the seed that both runs share (data order, initial weights).
    """
    return {seed: minuend[seed] - subtrahend[seed] for seed in sorted(minuend.keys() & subtrahend.keys())}


def median_interval(values: Iterable[float], level: float = LEVEL) -> tuple[float, float]:
    """Return a confidence interval for the median of the distribution that the values were drawn from.

    Its ends are two order statistics, so no distribution is assumed: the median lies between the k-th smallest and the
    k-th largest of n values with probability 1 - 2 P(B < k), where B is binomial (n, 1/2). The full range of n values
    contains it with probability 1 - 2^(1 - n). If that is below the level (fewer than six values at 95 %), the
    interval is unbounded. Raises `ValueError` for no values.
    """
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        raise ValueError("no values")
    outside = [2 * count / 2**n for count in itertools.accumulate(math.comb(n, k) for k in range((n + 1) // 2))]
    k = sum(share <= 1 - level for share in outside)
    return (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)
