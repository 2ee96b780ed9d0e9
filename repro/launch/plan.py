"""What there is to do: the runs of some rows, each with its record and what became of it so far. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.composition import compose, needs_root, quoted
from repro.config import PRETRAINED, Config
from repro.errors import UserError
from repro.paper_tables import load_table
from repro.rows import Row, Table
from repro.runs.record import Record, record_for
from repro.runs.status import Status
from repro.signature import signatures


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
    def origins(self) -> list[PlannedRun]:
        """The run that it begins with, the one that this one begins with, and so on."""
        return [] if self.starts_from is None else [self.starts_from, *self.starts_from.origins]

    def begins_with(self, other: PlannedRun) -> bool:
        """Whether it cannot start before another one is done."""
        return other.record.path in {origin.record.path for origin in self.origins}

    @property
    def is_done(self) -> bool:
        """Whether its result is on disk."""
        return self.record.result() is not None

    @property
    def state(self) -> str:
        """done, missing (its method cannot be trained yet), or what its status says."""
        return self.state_at(self.record.status())

    def state_at(self, status: Status) -> str:
        """`state`, for a status that was read before: the run may have moved on since."""
        if self.is_done:
            return "done"
        return status.state if self.config.method.is_trainable else "missing"


def plan(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> list[PlannedRun]:
    """Every run of the rows and seeds, in the table's order, after the runs that they begin with.

    A row that reads another's runs stands for that one.

    Raises `UserError`, once, with the errors of all rows, before anything starts.
    """
    runs: dict[Path, PlannedRun] = {}
    errors: dict[str, list[str]] = {}
    common = [f"run.root={quoted(str(root))}", *overrides]
    composed = functools.cache(lambda *words: compose(words))  # several rows begin with the same other row
    others = without_method(common)
    for row in dict.fromkeys(table.run_row(row) for row in rows):
        try:
            config = composed(*row.overrides_at(scale), *common)
            origins = _origins(table, row, config, lambda other: composed(*other.overrides_at(scale), *others))
            chain = [(row, config), *origins]
        except UserError as error:
            errors[str(error)] = [*errors.get(str(error), []), row.id]
            continue
        places = [signatures(each, seeds) for _, each in chain]
        for seed in seeds:
            begun = None
            for (each_row, each), known in zip(reversed(chain), reversed(places), strict=True):
                run = replace(_run(each_row, each, seed, root, known[seed]), starts_from=begun)
                begun = runs.setdefault(run.record.path, run)
    errors |= _shared_roots(list(runs.values()))
    if errors:
        raise UserError("\n".join(f"{ids[0]}{_others(ids)}: {text}" for text, ids in errors.items()))
    return list(runs.values())


def _shared_roots(runs: Sequence[PlannedRun]) -> dict[str, list[str]]:
    """What is wrong where several data sets are said to be in one folder, and a row of each."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        if needs_root(run.config.data.name):
            found.setdefault(str(run.config.data.root), {}).setdefault(run.config.data.name, run.row.id)
    return {
        f"data.root={root}: rows of {' and '.join(by_name)} cannot all have their data there; give each its own, "
        f"data.root={{{', '.join(f'{name}:/folder' for name in by_name)}}}, or take the rows of one": list(
            by_name.values()
        )
        for root, by_name in found.items()
        if len(by_name) > 1
    }


def _origins(
    table: Table, row: Row, config: Config, config_of: Callable[[Row], Config]
) -> Iterator[tuple[Row, Config]]:
    """The row that this one begins with, that which this other begins with, and so on, each with its config."""
    seen = [row]
    while (origin := origin_row(table, row, config)) is not None:
        if origin in seen:
            raise UserError(f"method.starts_from: {' begins with '.join(each.id for each in [*seen, origin])}")
        seen.append(origin)
        row, config = origin, config_of(origin)
        yield row, config


def origin_row(table: Table, row: Row, config: Config) -> Row | None:
    """The row whose finished run this one begins with; None for a run from scratch or from published weights.

    `method.starts_from` is a method of this table, or a table and a method of it (`table1/dense`). Raises `UserError`
    where the table has no such row.
    """
    place = config.method.starts_from
    if place is None or place == PRETRAINED:
        return None
    name, _, method = place.rpartition("/")
    where = load_table(name) if name else table
    for other in where.rows:
        if (other.backbone, other.method) == (row.backbone, method) and not other.run_of:
            return other
    raise UserError(f"method.starts_from={place}: {where.name} has no row {row.backbone}/{method} to begin with")


def without_method(overrides: Sequence[str]) -> list[str]:
    """Overrides that hold for another method too."""
    return [text for text in overrides if not text.lstrip("+").startswith(("method=", "method."))]


def _run(row: Row, config: Config, seed: int, root: Path, signature: str) -> PlannedRun:
    seeded = config.model_copy(update={"seed": seed})
    return PlannedRun(row, seeded, record_for(root, seeded, row.table, row.id, signature))


def _others(ids: list[str]) -> str:
    return f" and {len(ids) - 1} more rows" if len(ids) > 1 else ""
