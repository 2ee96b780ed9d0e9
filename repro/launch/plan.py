"""What there is to do: the runs of some rows, each with its record and what became of it so far. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.config import Config, compose
from repro.errors import UserError
from repro.rows import Row, Table
from repro.runs.record import Record, record_for


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row: what it is, where its record is, and its state there."""

    row: Row
    config: Config
    record: Record

    @property
    def is_done(self) -> bool:
        """Whether its result is on disk."""
        return self.record.result() is not None

    @property
    def state(self) -> str:
        """done, missing (its method cannot be trained yet), or what its status says."""
        if self.is_done:
            return "done"
        return self.record.status().state if self.config.method.is_trainable else "missing"


def plan(
    table: Table, rows: Sequence[Row], scale: str, seeds: Iterable[int], root: Path, overrides: Sequence[str] = ()
) -> list[PlannedRun]:
    """Every run of the rows and seeds, in the table's order.

    Raises `UserError`, once, with the errors of all rows, before anything starts.
    """
    runs: list[PlannedRun] = []
    errors: dict[str, list[str]] = {}
    for row in rows:
        try:
            config = compose([*row.overrides, f"scale={scale}", f"run.root={root}", *overrides])
        except UserError as error:
            errors[str(error)] = [*errors.get(str(error), []), row.id]
            continue
        for seed in seeds:
            seeded = config.model_copy(update={"seed": seed})
            runs.append(PlannedRun(row, seeded, record_for(root, seeded, table.name, row.id)))
    if errors:
        raise UserError("\n".join(f"{ids[0]}{_others(ids)}: {text}" for text, ids in errors.items()))
    return runs


def to_start(runs: Iterable[PlannedRun], retry: bool) -> list[PlannedRun]:
    """The runs that `launch` starts: not done, trainable, and failed ones only with `retry`."""
    return [run for run in runs if run.state not in ("done", "missing") and (retry or run.state != "failed")]


def _others(ids: list[str]) -> str:
    return f" and {len(ids) - 1} more rows" if len(ids) > 1 else ""
