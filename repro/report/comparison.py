"""Two rows held against each other, seed by seed, whatever their methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.errors import UserError
from repro.report.evidence import read_evidence
from repro.report.statistics import Summary, paired_differences, summarise
from repro.rows import Table


@dataclass(frozen=True)
class Comparison:
    """The first row's best epoch less the second's, in points: by seed, and over the seeds that both have finished."""

    first: str
    second: str
    by_seed: Mapping[int, float]
    summary: Summary

    @property
    def is_decided(self) -> bool:
        """Whether the 95 % interval of the mean difference leaves out zero; never with fewer than two seeds."""
        low, high = self.summary.low, self.summary.high
        return low is not None and high is not None and not low <= 0 <= high


def compare(
    table: Table,
    first: str,
    second: str,
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    key: str = "top1_best_pct",
) -> Comparison:
    """Compare two rows by a number of result.json. Raises `UserError` for a row that the table does not have."""
    values = []
    for name in (first, second):
        (row, *more) = table.select([name], scale)
        if more:
            raise UserError(f"{table.name}: {name!r} names {1 + len(more)} rows; a comparison takes one on each side")
        if row.run_of:
            raise UserError(f"{table.name}: {row.id} has no runs of its own; compare {row.run_of}, whose it reads")
        values.append(read_evidence(table.name, row, scale, seeds, root, overrides, time.time()).values(key))
    pairs = paired_differences(*values)
    return Comparison(first, second, pairs, summarise(pairs.values()))
