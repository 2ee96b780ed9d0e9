"""Statistics over seeds: how many, where, how far apart, how sure. Pure functions on numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

LEVEL = 0.95  # of every interval that is shown


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


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with what is known of its error.

    Attributes:
        error: standard error; None where one value says nothing of a spread.
        freedom: degrees of freedom of Student's t.
        words: from how many values, and how.
    """

    mean: float
    error: float | None
    freedom: float
    words: str

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Ends of the confidence interval of this level; without end where the error is not known."""
        if self.error is None:
            return -math.inf, math.inf
        from scipy.special import stdtrit  # type: ignore[import-untyped]  # takes a quarter of a second: only where needed

        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.mean - half, self.mean + half


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
    low, high = Estimate(mean, std / math.sqrt(n), n - 1, "").interval()
    return Summary(n, mean, std, low, high)


def paired_differences(minuend: Mapping[int, float], subtrahend: Mapping[int, float]) -> dict[int, float]:
    """Differences by seed, for the seeds that both have, in the order of the seeds.

    Pairing takes out what a seed does to both (the data order, the start), which a difference of means keeps.
    """
    return {seed: minuend[seed] - subtrahend[seed] for seed in sorted(minuend.keys() & subtrahend.keys())}


def mean_of(sample: Mapping[int, float]) -> Estimate:
    """The mean over seeds. Raises `ValueError` for no values."""
    found = summarise(sample.values())
    if found.mean is None:
        raise ValueError("no values")
    error = None if found.std is None else found.std / math.sqrt(found.n)
    return Estimate(found.mean, error, found.n - 1, _counted(found.n, "seed"))


def difference(minuend: Mapping[int, float], subtrahend: Mapping[int, float]) -> Estimate:
    """The mean of one sample less that of the other, each value by its seed.

    Paired where both have the same seeds. Elsewhere every value counts, by Welch's t (Welch, "The generalization of
    'Student's' problem when several different population variances are involved", Biometrika 1947), which needs no
    equal spread. Raises `ValueError` where either is empty.
    """
    if minuend.keys() == subtrahend.keys():
        paired = mean_of(paired_differences(minuend, subtrahend))
        return replace(paired, words=f"paired by {paired.words}")
    one, other = summarise(minuend.values()), summarise(subtrahend.values())
    if one.mean is None or other.mean is None:
        raise ValueError("no values")
    words = f"Welch, {one.n} and {_counted(other.n, 'seed')}"
    if one.std is None or other.std is None:
        return Estimate(one.mean - other.mean, None, 0, words)
    shares = (one.std**2 / one.n, other.std**2 / other.n)
    error = math.sqrt(sum(shares))
    # Without any spread the degrees of freedom are 0/0, and of no consequence.
    below = shares[0] ** 2 / (one.n - 1) + shares[1] ** 2 / (other.n - 1)
    freedom = sum(shares) ** 2 / below if below else one.n + other.n - 2
    return Estimate(one.mean - other.mean, error, freedom, words)


def median_interval(values: Iterable[float], level: float = LEVEL) -> tuple[float, float]:
    """An interval that holds the median of whatever the values were drawn from: two of them, by their order.

    No distribution is assumed: the median is between the k-th smallest and the k-th largest of n values with
    probability 1 - 2 P(B < k), B binomial (n, 1/2). All that n values span holds it with 1 - 2^(1 - n): where that is
    less than the level (fewer than six values at 95 %) the interval is without end. Raises `ValueError` for no values.
    """
    ordered = sorted(values)
    n, place, outside = len(ordered), 0, 0.0
    if not n:
        raise ValueError("no values")
    if 2 / 2**n > 1 - level:
        return -math.inf, math.inf
    while place < (n - 1) // 2:
        outside += 2 * math.comb(n, place) / 2**n
        if outside + 2 * math.comb(n, place + 1) / 2**n > 1 - level:
            break
        place += 1
    return ordered[place], ordered[-1 - place]


def _counted(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
