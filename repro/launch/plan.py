"""What there is to do: the runs of some rows, each with its record and what became of it so far. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.composition import compose, quoted
from repro.config import Config, signatures
from repro.errors import UserError
from repro.rows import Row, Table
from repro.runs.record import Record, record_for


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row: what it is, where its record is, its state there, and the run whose weights it begins with."""

    row: Row
    config: Config
    record: Record
    starts_from: PlannedRun | None = None

    def create(self) -> None:
        """Make its record, unless it is there."""
        origin = self.starts_from.record.path if self.starts_from else None
        self.record.create(self.config, self.row.table, self.row.id, origin)

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
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> list[PlannedRun]:
    """Every run of the rows and seeds, in the table's order, after the runs that they begin with.

    Raises `UserError`, once, with the errors of all rows, before anything starts.
    """
    runs: dict[Path, PlannedRun] = {}
    errors: dict[str, list[str]] = {}
    common = [f"scale={scale}", f"run.root={quoted(str(root))}", *overrides]
    composed = functools.cache(lambda *words: compose(words))  # several rows begin with the same other row
    for row in rows:
        try:
            config = composed(*row.overrides, *common)
            origin = origin_row(table, row, config)
            first = composed(*origin.overrides, *without_method(common)) if origin else None
        except UserError as error:
            errors[str(error)] = [*errors.get(str(error), []), row.id]
            continue
        places = signatures(config, seeds)
        first_places = signatures(first, seeds) if first else {}
        for seed in seeds:
            begun = None
            if origin is not None and first is not None:
                begun = _run(table, origin, first, seed, root, first_places[seed])
                begun = runs.setdefault(begun.record.path, begun)
            run = replace(_run(table, row, config, seed, root, places[seed]), starts_from=begun)
            runs.setdefault(run.record.path, run)
    if errors:
        raise UserError("\n".join(f"{ids[0]}{_others(ids)}: {text}" for text, ids in errors.items()))
    return list(runs.values())


def origin_row(table: Table, row: Row, config: Config) -> Row | None:
    """The row whose finished run this one begins with; None for a run from scratch.

    Raises `UserError` where the table has no such row.
    """
    method = config.method.starts_from
    if method is None:
        return None
    for other in table.rows:
        if (other.backbone, other.method) == (row.backbone, method):
            return other
    raise UserError(f"method.starts_from={method}: {table.name} has no row {row.backbone}/{method} to begin with")


def without_method(overrides: Sequence[str]) -> list[str]:
    """Overrides that hold for another method too."""
    return [text for text in overrides if not text.lstrip("+").startswith(("method=", "method."))]


def _run(table: Table, row: Row, config: Config, seed: int, root: Path, signature: str) -> PlannedRun:
    seeded = config.model_copy(update={"seed": seed})
    return PlannedRun(row, seeded, record_for(root, seeded, table.name, row.id, signature))


def _others(ids: list[str]) -> str:
    return f" and {len(ids) - 1} more rows" if len(ids) > 1 else ""
