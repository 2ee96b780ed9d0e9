"""Which runs form an array, which array waits for which run, and how many tasks of each run at once. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.launch.plan import PlannedRun


@dataclass(frozen=True)
class Array:
    """Runs with identical requests. All of them start from the run with the record `origin`, and wait for it."""

    runs: tuple[PlannedRun, ...]
    origin: Path | None = None


@dataclass(frozen=True)
class Slots:
    """How many tasks of an array may run at once, and the index of the array whose end it waits for."""

    parallel: int
    after: int | None = None


def group_into_arrays(runs: Sequence[PlannedRun], limit: int) -> list[Array]:
    """Arrays of at most `limit` runs: first those that can start now, then those that start from another run."""
    groups: dict[Path | None, list[PlannedRun]] = {None: []}
    for run in runs:
        # Once a run: its origin may be done a moment later.
        is_waiting = run.starts_from is not None and not run.starts_from.is_done
        origin = run.starts_from.record.path if run.starts_from is not None and is_waiting else None
        groups.setdefault(origin, []).append(run)
    return [
        Array(tuple(group[start : start + limit]), origin)
        for origin, group in groups.items()
        for start in range(0, len(group), limit)
    ]


def share_parallelism(sizes: Sequence[int], parallel: int) -> list[Slots]:
    """Share `parallel` slots among arrays of these sizes, so that at most `parallel` tasks run in total.

    Slurm's own limit (`%N`) holds within one array. Arrays get slots in proportion to their sizes, at least one. If
    there are more arrays than slots, the small ones (with less than one slot's share of the work) run one after another
    in the slots that the large ones leave.
    """
    if len(sizes) <= parallel:
        return [Slots(share) for share in _proportional(sizes, parallel)]
    work_per_slot = sum(sizes) / parallel
    slots = {index: Slots(int(size / work_per_slot)) for index, size in enumerate(sizes) if size >= work_per_slot}
    # Fewer than `parallel` in total, since the small arrays are part of the work.
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
    """Slots for each of at most `parallel` arrays."""
    shares = [1] * len(sizes)
    for _ in range(min(parallel, sum(sizes)) - len(sizes)):
        candidates = [index for index, size in enumerate(sizes) if shares[index] < size]
        shares[max(candidates, key=lambda index: sizes[index] / shares[index])] += 1
    return shares
