"""Keep rates: the share of an image's patches that remains after each stage of token dropping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def result_names(stage: int) -> tuple[str, str]:
    """The keys in result.json of the mean and the mean square of the keep rate after `stage`, counted from 1."""
    return f"keep_rate_{stage}", f"keep_rate_square_{stage}"


def stage_starts(blocks: int, stages: int) -> tuple[int, ...]:
    """The first block of each of `stages` groups of nearly equal size: 12 blocks in 3 groups start at 0, 4 and 8."""
    return tuple(stage * blocks // stages for stage in range(stages))


@dataclass(frozen=True)
class KeepRates:
    """The mean over images of the keep rate after each stage, and the mean of its square."""

    mean: tuple[float, ...]
    square: tuple[float, ...]

    @classmethod
    def planned(cls, rates: Sequence[float], spread: float = 0.0) -> KeepRates:
        """Mean `rates`, with images distributed uniformly from `1 - spread` to `1 + spread` times the mean."""
        return cls(tuple(rates), tuple(rate**2 * (1 + spread**2 / 3) for rate in rates))

    @classmethod
    def measured(cls, results: Sequence[Mapping[str, Any]], stages: int) -> KeepRates | None:
        """The mean over the results of finished runs; None without results, or if one lacks a keep rate."""
        names = [result_names(stage) for stage in range(1, stages + 1)]
        if not results or any(result.get(name) is None for result in results for pair in names for name in pair):
            return None

        def mean_of(name: str) -> float:
            return sum(float(result[name]) for result in results) / len(results)

        return cls(tuple(mean_of(mean) for mean, _ in names), tuple(mean_of(square) for _, square in names))


@dataclass(frozen=True)
class TokensPerBlock:
    """Tokens that reach each block, class token included, as a share of all: the mean over images, and the mean square.

    The cost of a linear layer is proportional to the mean, that of attention to the mean square.
    """

    mean: tuple[float, ...]
    square: tuple[float, ...]

    @classmethod
    def from_keep_rates(cls, rates: KeepRates, blocks: int, patches: int) -> TokensPerBlock:
        """Tokens per block of a model with `patches` patches and a class token, dropped before each group of blocks."""
        tokens = patches + 1
        mean, square = [1.0] * blocks, [1.0] * blocks
        for start, rate, rate_square in zip(
            stage_starts(blocks, len(rates.mean)), rates.mean, rates.square, strict=True
        ):
            mean[start:] = [(1 + patches * rate) / tokens] * (blocks - start)
            square[start:] = [(1 + 2 * patches * rate + patches**2 * rate_square) / tokens**2] * (blocks - start)
        return cls(tuple(mean), tuple(square))
