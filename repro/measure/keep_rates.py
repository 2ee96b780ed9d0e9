"""Keep rates: the share of an image's patches that is left after each stage of token dropping. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def names(stage: int) -> tuple[str, str]:
    """What a result calls the mean and the mean square of the share left after stage `stage`, counted from 1."""
    return f"keep_rate_{stage}", f"keep_rate_square_{stage}"


@dataclass(frozen=True)
class Kept:
    """Over images: the mean share of the patches left after each stage, and the mean of its square."""

    mean: tuple[float, ...]
    square: tuple[float, ...]

    @classmethod
    def planned(cls, rates: Sequence[float], spread: float = 0.0) -> Kept:
        """These rates on average; images differ evenly from `1 - spread` to `1 + spread` times that."""
        return cls(tuple(rates), tuple(rate**2 * (1 + spread**2 / 3) for rate in rates))

    @classmethod
    def measured(cls, results: Sequence[Mapping[str, Any]], stages: int) -> Kept | None:
        """The mean over finished runs; None without one, or where one has not measured any."""
        wanted = [names(stage) for stage in range(1, stages + 1)]
        if not results or any(result.get(name) is None for result in results for pair in wanted for name in pair):
            return None

        def over_runs(name: str) -> float:
            return sum(float(result[name]) for result in results) / len(results)

        return cls(tuple(over_runs(mean) for mean, _ in wanted), tuple(over_runs(square) for _, square in wanted))
