"""Statistics over seeds: how many, where, how far apart, how sure. Pure functions on numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.special import stdtrit  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Summary:
    """What a sample says, in the unit of its values.

    Attributes:
        n: how many values.
        mean: their mean; None for no values.
        std: sample standard deviation (n - 1 in the denominator); None for fewer than two.
        low, high: ends of the 95 % confidence interval of the mean (Student's t); None for fewer than two.
    """

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


def summarise(values: Iterable[float]) -> Summary:
    """The summary of a sample. Raises `ValueError` for NaN and infinity: a failed run has no accuracy to average."""
    sample = [float(value) for value in values]
    if not all(math.isfinite(value) for value in sample):
        raise ValueError(f"not finite: {sample}")
    n = len(sample)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean = statistics.fmean(sample)
    if n == 1:
        return Summary(1, mean, None, None, None)
    std = statistics.stdev(sample)
    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def paired_differences(minuend: Mapping[int, float], subtrahend: Mapping[int, float]) -> dict[int, float]:
    """Differences by seed, for the seeds that both have, in the order of the seeds.

    Pairing takes out what a seed does to both (the data order, the start), which a difference of means keeps.
    """
    return {seed: minuend[seed] - subtrahend[seed] for seed in sorted(minuend.keys() & subtrahend.keys())}
