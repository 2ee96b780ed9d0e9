"""Runs as arrays: which go together, which wait for which, and how many tasks of each may run at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.plan import PlannedRun


@dataclass(frozen=True)
class Array:
    """Runs of one identical request. `origin` is the record of the run that all of them begin with and wait for."""

    runs: tuple[PlannedRun, ...]
    origin: Path | None = None


@dataclass(frozen=True)
class Place:
    """How many tasks of an array may run at once, and the array (its index) whose end it waits for."""

    parallel: int
    after: int | None = None


def arrays(runs: Sequence[PlannedRun], limit: int) -> list[Array]:
    """Arrays of at most `limit` runs: those that can start now, then those that begin with another run's weights."""
    groups: dict[Path | None, list[PlannedRun]] = {None: []}
    for run in runs:
        # Asked once: a run that ends while others are submitted must not fall between the two.
        waits = run.starts_from is not None and not run.starts_from.is_done
        origin = run.starts_from.record.path if run.starts_from is not None and waits else None
        groups.setdefault(origin, []).append(run)
    return [
        Array(tuple(group[start : start + limit]), origin)
        for origin, group in groups.items()
        for start in range(0, len(group), limit)
    ]


def places(sizes: Sequence[int], parallel: int) -> list[Place]:
    """Share `parallel` places among arrays of these sizes, so that never more than `parallel` tasks run in all.

    Slurm's own limit (`%N`) holds within one array only. Places go to arrays in proportion to their sizes, one at the
    least; where there are more arrays than places, each waits for the end of the one `parallel` before it.
    """
    if len(sizes) > parallel:
        return [Place(1, index - parallel if index >= parallel else None) for index in range(len(sizes))]
    shares = [1] * len(sizes)
    for _ in range(min(parallel, sum(sizes)) - len(sizes)):
        neediest = max(
            (index for index in range(len(sizes)) if shares[index] < sizes[index]),
            key=lambda index: sizes[index] / shares[index],
        )
        shares[neediest] += 1
    return [Place(share) for share in shares]
