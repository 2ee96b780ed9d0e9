"""A row's config with the keep rates that its finished runs have measured: what a timing should use."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from repro.config import Config
from repro.measure.cost import rests_on_data
from repro.measure.keep_rates import Kept
from repro.runs.record import record_for


def as_kept(config: Config, table: str, row: str, seeds: Iterable[int], root: Path) -> Config:
    """`config`, of the published training, with what its runs below `root` kept on average in the place of the plan.

    The same config where no token is dropped by the image, or not every one of these seeds is finished.
    """
    tokens = config.method.tokens
    if tokens is None or not rests_on_data(config.method):
        return config
    results = [record_for(root, config.model_copy(update={"seed": seed}), table, row).result() for seed in seeds]
    kept = Kept.measured([result or {} for result in results], len(tokens.keep_rates))
    if kept is None:
        return config
    # Images are taken to differ evenly by a share `s` of the mean: then the mean square is mean^2 (1 + s^2 / 3).
    spreads = [
        math.sqrt(3 * max(0.0, square / mean**2 - 1)) if mean else 0.0
        for mean, square in zip(kept.mean, kept.square, strict=True)
    ]
    options = {"keep_rates": list(kept.mean), "keep_spread": min(1.0, sum(spreads) / len(spreads))}
    method = config.method.model_copy(update={"tokens": tokens.model_copy(update=options)})
    return config.model_copy(update={"method": method})
