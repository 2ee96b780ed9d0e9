"""Reads and checks the tables in `paper_tables/` and in the folders of REPRO_PATH.

Every published value has to name a row and a metric of its table, a known source, and a kind of evidence. Otherwise the
table is rejected.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from repro.errors import UserError, did_you_mean
from repro.locations import TABLES_DIR, table_dirs
from repro.tables.file_models import PublishedRecord, RowRecord, RowSetEntry, SourceRecord, TableFile
from repro.tables.rows import PUBLISHED, Metric, PublishedValue, Row, Source, Table, row_id
from repro.typed_files import read_records, read_yaml

ABLATIONS = "ablations"  # the row set of a table's `ablations.csv`


def table_names() -> list[str]:
    """Return the names of all tables, in alphabetical order."""
    return sorted({path.parent.name for folder in table_dirs() for path in folder.glob("*/table.yaml")})


def find_row(name: str, what_is_missing: str = "no such row") -> tuple[Table, Row]:
    """Return the table and the row that `name` denotes: `<table>/<id>`, or an id in the first table that has it.

    Raises `UserError` if no table has the row; `what_is_missing` is part of the message.
    """
    rows = rows_by_name()
    if name not in rows:
        raise UserError(f"{name}: {what_is_missing}{did_you_mean(name, rows)} (repro list)")
    return rows[name]


def rows_by_name() -> dict[str, tuple[Table, Row]]:
    """Return every row of every table with its table, by the names that `find_row` accepts."""
    tables = [load_table(table) for table in table_names()]
    every = {f"{table.name}/{row.id}": (table, row) for table in tables for row in table.every_row}
    by_id = {row.id: (table, row) for table, row in reversed(every.values())}
    return by_id | every


def load_sources() -> Mapping[str, Source]:
    """Return every source that a published value or a claim can name, by name."""
    return _load_sources(table_dirs())


@functools.lru_cache(maxsize=8)
def _load_sources(folders: tuple[Path, ...]) -> Mapping[str, Source]:
    files = [folder / "sources.csv" for folder in folders]
    return {
        record.source: Source(record.source, record.citation, record.where)
        for file in files
        if file.is_file()
        for _, record in read_records(file, SourceRecord)
    }


def load_table(name: str) -> Table:
    """Read and check one table. Raises `UserError`, with file and line, for the first error."""
    folders = [folder / name for folder in table_dirs() if name and (folder / name / "table.yaml").is_file()]
    if not folders:
        raise UserError(f"no table {name!r} in {TABLES_DIR.name}/{did_you_mean(name, table_names())}")
    if len(folders) > 1:
        raise UserError(f"table {name!r} is in {' and in '.join(str(folder) for folder in folders)}; rename one")
    return _load_table(folders[0], table_dirs())


@functools.lru_cache(maxsize=16)
def _load_table(folder: Path, folders: tuple[Path, ...]) -> Table:
    name, file = folder.name, folder / "table.yaml"
    about = read_yaml(file, TableFile)
    if about.name != name:
        raise UserError(f"{file}: name: is {about.name!r}, but the folder is {name}/; make them the same")
    sources = _load_sources(folders)
    rows = _read_rows(name, folder / "rows.csv")
    published = _read_published(folder / "published.csv", rows, about.metrics, sources)
    rows = {id_: replace(row, published=tuple(published.get(id_, ()))) for id_, row in rows.items()}
    sets = {set_name: tuple(_generate(name, entries, rows)) for set_name, entries in about.row_sets.items()}
    if (folder / f"{ABLATIONS}.csv").is_file():
        ablations = _read_rows(name, folder / f"{ABLATIONS}.csv")
        if both := sorted(ablations.keys() & rows.keys()):
            raise UserError(f"{folder}/{ABLATIONS}.csv: also in rows.csv: {', '.join(both)}")
        sets[ABLATIONS] = tuple(ablations.values())
    every = {row.id: row for members in (*sets.values(), rows.values()) for row in members}
    patterns_of: dict[str, Iterable[str]] = {"datasets": about.datasets, **about.overrides}
    for key, patterns in patterns_of.items():
        if unmatched := [pattern for pattern in patterns if not any(fnmatchcase(id_, pattern) for id_ in every)]:
            raise UserError(f"{file}: {key}: no row matches {unmatched[0]!r}{did_you_mean(unmatched[0], every)}")
    every = {id_: _with_scale_overrides(row, about.overrides) for id_, row in every.items()}
    every = {id_: with_source_row(row, every, about.metrics) for id_, row in every.items()}
    if unknown := [word for word in about.default if word not in (PUBLISHED, *sets)]:
        raise UserError(f"{file}: default: no row set {unknown[0]!r}{did_you_mean(unknown[0], [PUBLISHED, *sets])}")
    return Table(
        name=name,
        title=about.title,
        paper=about.paper,
        dataset=about.dataset,
        figure=about.figure or _figure_name(name),
        macs_label=about.macs_label,
        rows=tuple(every[id_] for id_ in rows),
        metrics=about.metrics,
        sources=sources,
        row_sets={set_name: tuple(every[row.id] for row in members) for set_name, members in sets.items()},
        labels=about.labels,
        default_sets=tuple(about.default),
        seeds=about.seeds,
        datasets=about.datasets,
    )


def _figure_name(table: str) -> str:
    """Return the name of a table's figure and Makefile target: `figure1` for `table1`, otherwise `figure_<table>`."""
    return re.sub(r"^table(?=\d)", "figure", table) if re.match(r"table\d", table) else f"figure_{table}"


def _read_rows(table: str, path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line, record in read_records(path, RowRecord):
        if record.row in rows:
            raise UserError(f"{line}: duplicate row {record.row!r}")
        rows[record.row] = Row(
            table=table,
            id=record.row,
            backbone=record.backbone,
            method=record.method,
            arch_sparsity_pct=record.arch_sparsity_pct,
            data_sparsity_pct=record.data_sparsity_pct,
            note=record.note,
            own_overrides=tuple(record.overrides.split()),
            scales=tuple(record.scales.split()),
            reads_runs_of=record.run_of,
            heat_map=record.heat_map,
        )
    return rows


def _with_scale_overrides(row: Row, by_scale: Mapping[str, Mapping[str, list[str]]]) -> Row:
    """Add the overrides in table.yaml at each scale, from all patterns that match the row; later ones win."""
    overrides = {
        scale: tuple(word for pattern, words in patterns.items() if fnmatchcase(row.id, pattern) for word in words)
        for scale, patterns in by_scale.items()
    }
    return replace(row, by_scale=tuple(overrides.items()))


def with_source_row(row: Row, rows: Mapping[str, Row], metrics: Mapping[str, Metric]) -> Row:
    """Give a row that reads another row's runs the overrides of that row, so that both have the same records.

    Raises `UserError` if the other row does not exist, has no runs of its own or has another model, if only one of
    `run_of` and `heat_map` is set, or if a published value cannot be measured for a row of this kind.
    """
    row_name = f"{row.table}: row {row.id}"
    for value in row.published:
        if (metrics[value.metric].needs == "interpretation") != bool(row.heat_map):
            heat_map = f"reads the heat map {row.heat_map!r}" if row.heat_map else "reads no heat map"
            raise UserError(f"{row_name}: a published {value.metric} for a row that {heat_map}")
    if bool(row.reads_runs_of) != bool(row.heat_map):
        raise UserError(f"{row_name}: run_of and heat_map come together; set both or neither")
    if not row.reads_runs_of:
        return row
    source = rows.get(row.reads_runs_of)
    if source is None or source.reads_runs_of:
        why = "has no runs of its own" if source else "is not a row of this table"
        raise UserError(f"{row_name}: run_of={row.reads_runs_of}, which {why}{did_you_mean(row.reads_runs_of, rows)}")
    if row.own_overrides or row.scales or _model_of(row) != _model_of(source):
        raise UserError(
            f"{row_name}: reads the runs of {source.id}, so it must have that row's backbone, method and sparsities, "
            "and no overrides or scales of its own"
        )
    return replace(row, own_overrides=source.own_overrides, scales=source.scales, by_scale=source.by_scale)


def _model_of(row: Row) -> tuple[str, str, float, float]:
    return row.backbone, row.method, row.arch_sparsity_pct, row.data_sparsity_pct


def _generate(table: str, entries: Iterable[RowSetEntry], known: Mapping[str, Row]) -> Iterable[Row]:
    for entry in entries:
        lists = entry.model_dump()
        for values in itertools.product(*lists.values()):
            spec = dict(zip(lists, values, strict=True))
            id_ = row_id(spec["backbone"], spec["method"], spec["arch_sparsity_pct"], spec["data_sparsity_pct"])
            yield known.get(id_) or Row(table=table, id=id_, note="no published value", **spec)


def _read_published(
    path: Path, rows: Mapping[str, Row], metrics: Mapping[str, Metric], sources: Mapping[str, Source]
) -> dict[str, list[PublishedValue]]:
    published: dict[str, list[PublishedValue]] = {}
    for line, record in read_records(path, PublishedRecord):
        valid = {"row": rows, "metric": metrics, "source": sources}
        for column, names in valid.items():
            if (name := getattr(record, column)) not in names:
                raise UserError(f"{line}: {column} {name!r} unknown{did_you_mean(name, names)}")
        value = PublishedValue(**record.model_dump(exclude={"row"}))
        published.setdefault(record.row, []).append(value)
    return published
