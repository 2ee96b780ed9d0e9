"""Groups runs into Slurm arrays: what an array waits for, and how many of its tasks run at once. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.plan import PlannedRun


@dataclass(frozen=True)
class Array:
    """Runs that are submitted together. If `origin` is set, all of them wait for the run with that record folder."""

    runs: tuple[PlannedRun, ...]
    origin: Path | None = None


@dataclass(frozen=True)
class Slots:
    """The number of tasks of an array that may run at once, and the index of the array that must end first, if any."""

    parallel: int
    after: int | None = None


def group_into_arrays(runs: Sequence[PlannedRun], limit: int) -> list[Array]:
    """Return arrays of at most `limit` runs: first those that can start now, then those that wait for another run."""
    groups: dict[Path | None, list[PlannedRun]] = {None: []}
    for run in runs:
        # Read once per run: the answer may change from one moment to the next.
        is_waiting = run.starts_from is not None and not run.starts_from.is_done
        origin = run.starts_from.record.path if run.starts_from is not None and is_waiting else None
        groups.setdefault(origin, []).append(run)
    return [
        Array(tuple(group[start : start + limit]), origin)
        for origin, group in groups.items()
        for start in range(0, len(group), limit)
    ]


def share_parallelism(sizes: Sequence[int], parallel: int) -> list[Slots]:
    """Distribute `parallel` slots over arrays of these sizes, so that at most `parallel` tasks run in total.

    Slurm's own limit (`--array=0-9%N`) holds only within one array. Each array gets slots in proportion to its size,
    but at least one. If there are more arrays than slots, small arrays (with less work than an average slot) run one
    after another in the slots that the large arrays leave.
    """
    if len(sizes) <= parallel:
        return [Slots(share) for share in _proportional(sizes, parallel)]
    work_per_slot = sum(sizes) / parallel
    slots = {index: Slots(int(size / work_per_slot)) for index, size in enumerate(sizes) if size >= work_per_slot}
    # At least one lane is left, since the small arrays account for part of the work.
    lanes = parallel - sum(slot.parallel for slot in slots.values())
    load = [0] * lanes
    last: list[int | None] = [None] * lanes
    for index, size in enumerate(sizes):
        if index not in slots:
            lane = load.index(min(load))
            slots[index] = Slots(1, last[lane])
            load[lane] += size
            last[lane] = index
    return [slots[index] for index in range(len(sizes))]


def _proportional(sizes: Sequence[int], parallel: int) -> list[int]:
    """Return the slots of at most `parallel` arrays, as proportional to their sizes as whole slots can be."""
    shares = [1] * len(sizes)
    for _ in range(min(parallel, sum(sizes)) - len(sizes)):
        candidates = [index for index, size in enumerate(sizes) if shares[index] < size]
        shares[max(candidates, key=lambda index: sizes[index] / shares[index])] += 1
    return shares
