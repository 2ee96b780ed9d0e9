"""The runs of a table's rows, each with its config and its record. This module does not import torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.config import PRETRAINED, Config
from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER, needs_root
from repro.config.overrides import quoted, without_method
from repro.config.signature import signatures
from repro.errors import UserError, first_few
from repro.runs.record import Record, record_for
from repro.runs.status import Status
from repro.tables.loader import find_row, load_table
from repro.tables.rows import Row, Table, row_id


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row.

    `starts_from` is the run whose weights it starts from, if any; `label` replaces the row's id in messages.
    """

    row: Row
    config: Config
    record: Record
    starts_from: PlannedRun | None = None
    label: str = ""

    def create(self) -> None:
        """Create its record, or update that of an unfinished run: see `Record.create`."""
        origin = self.starts_from.record.path if self.starts_from else None
        self.record.create(self.config, self.row.table, self.row.id, origin)

    @property
    def origins(self) -> list[PlannedRun]:
        """The run that it starts from, the run that this one starts from, and so on."""
        return [] if self.starts_from is None else [self.starts_from, *self.starts_from.origins]

    @property
    def chain(self) -> list[PlannedRun]:
        """The run and its origins, each after the run that it starts from."""
        return [*reversed(self.origins), self]

    def depends_on(self, other: PlannedRun) -> bool:
        """Return whether it can start only after another run is done."""
        return other.record.path in {origin.record.path for origin in self.origins}

    @property
    def is_done(self) -> bool:
        """Whether its record has a result."""
        return self.record.result() is not None

    @property
    def state(self) -> str:
        """`done`, `missing` (its method has no training yet), or the state in its record."""
        return self.state_at(self.record.status())

    def state_at(self, status: Status) -> str:
        """Return the state for a status that the caller has already read."""
        if self.is_done:
            return "done"
        return status.state if self.config.method.is_trainable else "missing"


def plan(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> list[PlannedRun]:
    """Return the runs of rows and seeds in the table's order, each after the runs that it starts from.

    A row that reads another row's runs is replaced by that row. Raises one `UserError` with the errors of all rows.
    """
    runs: dict[Path, PlannedRun] = {}
    errors: dict[str, list[str]] = {}
    common = [f"run.root={quoted(str(root))}", *overrides]
    composed = functools.cache(lambda *words: compose(words))  # several rows start from the same row
    others = without_method(common)
    for row in dict.fromkeys(table.source_row(row) for row in rows):
        try:
            config = composed(*row.overrides_at(scale), *common)
            origins = _origins(table, row, config, lambda other: composed(*other.overrides_at(scale), *others))
            chain = [(row, config), *origins]
        except UserError as error:
            errors[str(error)] = [*errors.get(str(error), []), row.id]
            continue
        chain_signatures = [signatures(each, seeds) for _, each in chain]
        for seed in seeds:
            origin = None
            for (each_row, each), known in zip(reversed(chain), reversed(chain_signatures), strict=True):
                run = replace(_run(each_row, each, seed, root, known[seed]), starts_from=origin)
                origin = runs.setdefault(run.record.path, run)
    errors |= _shared_root_errors(list(runs.values()))
    if errors:
        raise UserError("\n".join(f"{first_few(ids, 1)}: {text}" for text, ids in errors.items()))
    return list(runs.values())


def row_of(config: Config, table: str, id_: str | None = None) -> Row:
    """Return the row that a config describes, without reading its table. If `id_` is None, the config gives the id."""
    backbone, method = config.backbone.name, config.method
    sparsities = 100 * method.sparsity, 100 * method.data_sparsity
    return Row(table, id_ or row_id(backbone, method.name, *sparsities), backbone, method.name, *sparsities)


def recorded_run(record: Record) -> PlannedRun:
    """Return the run of an existing record, without the run that it starts from."""
    about, config = record.about(), record.config()
    return PlannedRun(row_of(config, about["table"], about["row"]), config, record)


def finished_record(what: str, scale: str, seed: int, root: Path, overrides: Sequence[str]) -> Record:
    """Return the record in the folder `what`, or of the row `what`.

    Raises `UserError` if there is none, if it is neither done nor adopted, and for overrides of a folder's config.
    """
    record = Record(Path(what))
    if (record.path / "config.yaml").is_file():
        if overrides:
            raise UserError(f"{what}: a record has its own config; leave out {' '.join(overrides)}")
    else:
        table, row = find_row(what, "neither the folder of a record nor a row")
        runs = plan(table, [row], scale, [seed], root, [NO_FOLDER, *overrides])
        record = runs[-1].record  # the runs that it starts from come first
    if record.result() is None and not record.is_adopted:
        raise UserError(f"{record.path}: not done ({record.status().state}); launch the row first")
    return record


def _shared_root_errors(runs: Sequence[PlannedRun]) -> dict[str, list[str]]:
    """Return an error for each folder that is set for several data sets, with a row of each data set."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        if needs_root(run.config.data.name) and f"data.root={run.config.data.root}" != NO_FOLDER:
            found.setdefault(str(run.config.data.root), {}).setdefault(run.config.data.name, run.row.id)
    return {
        f"data.root={root}: {' and '.join(by_name)} cannot be in one folder; set one for each, "
        f"data.root={{{', '.join(f'{name}:/folder' for name in by_name)}}}, or choose rows of one data set": list(
            by_name.values()
        )
        for root, by_name in found.items()
        if len(by_name) > 1
    }


def _origins(
    table: Table, row: Row, config: Config, config_of: Callable[[Row], Config]
) -> Iterator[tuple[Row, Config]]:
    """Yield the row that a row starts from, the row that this one starts from, and so on, each with its config.

    Raises `UserError` for a cycle.
    """
    seen = [row]
    while (origin := origin_row(table, row, config)) is not None:
        if origin in seen:
            raise UserError(f"method.starts_from: {' starts from '.join(each.id for each in [*seen, origin])}")
        seen.append(origin)
        row, config = origin, config_of(origin)
        yield row, config


def origin_row(table: Table, row: Row, config: Config) -> Row | None:
    """Return the row that `method.starts_from` names (`dense`, `table1/dense`), if any.

    Raises `UserError` if there is no such row.
    """
    target = config.method.starts_from
    if target is None or target == PRETRAINED:
        return None
    name, _, method = target.rpartition("/")
    where = load_table(name) if name else table
    for other in where.rows:
        if (other.backbone, other.method) == (row.backbone, method) and not other.reads_runs_of:
            return other
    raise UserError(f"method.starts_from={target}: {where.name} has no row {row.backbone}/{method} to start from")


def _run(row: Row, config: Config, seed: int, root: Path, signature: str) -> PlannedRun:
    seeded = config.model_copy(update={"seed": seed})
    return PlannedRun(row, seeded, record_for(root, seeded, row.table, row.id, signature))
