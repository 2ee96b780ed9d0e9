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
    least. Where there are more arrays than places, the small ones (of less than a place's work) queue up behind each
    other in the places that the large ones leave.
    """
    if len(sizes) <= parallel:
        return [Place(share) for share in _shares(sizes, parallel)]
    work = sum(sizes) / parallel  # of one place
    found = [Place(int(size / work)) if size >= work else None for size in sizes]
    # Fewer than all: the small arrays' work is part of the sum.
    left = parallel - sum(place.parallel for place in found if place is not None)
    load = [0] * left
    last: list[int | None] = [None] * left
    for index, size in enumerate(sizes):
        if found[index] is None:
            line = load.index(min(load))
            found[index] = Place(1, last[line])
            load[line] += size
            last[line] = index
    return [place for place in found if place is not None]


def _shares(sizes: Sequence[int], parallel: int) -> list[int]:
    """Places for each of no more arrays than places."""
    shares = [1] * len(sizes)
    for _ in range(min(parallel, sum(sizes)) - len(sizes)):
        neediest = max(
            (index for index in range(len(sizes)) if shares[index] < sizes[index]),
            key=lambda index: sizes[index] / shares[index],
        )
        shares[neediest] += 1
    return shares
