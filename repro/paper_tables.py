"""The folder `paper_tables/`: what it holds of each table, read and checked.

Every published value comes through here: it names a row and a metric of its table, a known source and a kind of
evidence, or the table is not read at all.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from repro.errors import UserError, did_you_mean
from repro.rows import KINDS, PUBLISHED, Metric, PublishedValue, Row, Source, Table, row_id

TABLES_DIR = Path(__file__).resolve().parent.parent / "paper_tables"
ABLATIONS = "ablations"  # the row set of a table's `ablations.csv`


def table_names() -> list[str]:
    """The tables that `paper_tables/` holds."""
    return sorted(path.parent.name for path in TABLES_DIR.glob("*/table.yaml"))


@functools.cache
def load_sources() -> Mapping[str, Source]:
    """Every source that a published value or a claim may name."""
    return {
        record["source"]: Source(record["source"], record["citation"], record["where"])
        for _, record in _read_csv(TABLES_DIR / "sources.csv")
    }


@functools.lru_cache(maxsize=8)
def load_table(name: str) -> Table:
    """Read and check one table.

    Raises `UserError`, naming file and line, for an unknown table, a value without a known source or kind, or a
    value whose row or metric the table does not have.
    """
    folder = TABLES_DIR / name
    if not (folder / "table.yaml").is_file():
        raise UserError(f"no table {name!r} in {TABLES_DIR.name}/{did_you_mean(name, table_names())}")
    about: dict[str, Any] = yaml.safe_load((folder / "table.yaml").read_text(encoding="utf-8"))
    metrics = {key: Metric(name=key, **values) for key, values in about["metrics"].items()}
    sources = load_sources()
    published = _read_published(folder / "published.csv", metrics, sources)
    rows = _read_rows(name, folder / "rows.csv")
    rows = {id_: replace(row, published=tuple(published.pop(id_, ()))) for id_, row in rows.items()}
    if published:
        raise UserError(f"{folder.name}/published.csv: values for rows not in rows.csv: {', '.join(sorted(published))}")
    sets = {set_name: tuple(_generate(name, entries, rows)) for set_name, entries in about.get("row_sets", {}).items()}
    if (folder / f"{ABLATIONS}.csv").is_file():
        ablations = _read_rows(name, folder / f"{ABLATIONS}.csv")
        if both := sorted(ablations.keys() & rows.keys()):
            raise UserError(f"{name}/{ABLATIONS}.csv: also in rows.csv: {', '.join(both)}")
        sets[ABLATIONS] = tuple(ablations.values())
    by_scale: Mapping[str, Mapping[str, list[str]]] = about.get("overrides", {})
    rows = {id_: _scaled(row, by_scale) for id_, row in rows.items()}
    sets = {set_name: tuple(_scaled(row, by_scale) for row in members) for set_name, members in sets.items()}
    every = {row.id: row for members in (*sets.values(), rows.values()) for row in members}
    rows = {id_: _as_read(row, every, metrics) for id_, row in rows.items()}
    sets = {set_name: tuple(_as_read(row, every, metrics) for row in members) for set_name, members in sets.items()}
    default = tuple(about.get("default", [PUBLISHED]))
    if unknown := [word for word in default if word not in (PUBLISHED, *sets)]:
        raise UserError(
            f"{name}/table.yaml: default: no row set {unknown[0]!r}{did_you_mean(unknown[0], [PUBLISHED, *sets])}"
        )
    return Table(
        name=name,
        title=about["title"],
        paper=about["paper"],
        dataset=about["dataset"],
        figure=about["figure"],
        macs_label=about["macs_label"],
        rows=tuple(rows.values()),
        metrics=metrics,
        sources=sources,
        row_sets=sets,
        labels=about.get("labels", {}),
        default_sets=default,
        seeds=about.get("seeds", {}),
        datasets=about.get("datasets", {}),
    )


def _read_rows(table: str, path: Path) -> dict[str, Row]:
    """Rows by id. The columns `overrides` and `scales`, words separated by spaces, `run_of` and `heat_map` may be left
    out."""
    rows: dict[str, Row] = {}
    for place, record in _read_csv(path):
        if record["row"] in rows:
            raise UserError(f"{place}: row {record['row']!r} is there twice")
        rows[record["row"]] = Row(
            table=table,
            id=record["row"],
            backbone=record["backbone"],
            method=record["method"],
            arch_sparsity_pct=_number(record["arch_sparsity_pct"], place),
            data_sparsity_pct=_number(record["data_sparsity_pct"], place),
            note=record["note"],
            settings=tuple((record.get("overrides") or "").split()),
            scales=tuple((record.get("scales") or "").split()),
            run_of=record.get("run_of") or "",
            heat_map=record.get("heat_map") or "",
        )
    return rows


def _scaled(row: Row, by_scale: Mapping[str, Mapping[str, list[str]]]) -> Row:
    """The row with what its table says of it at each scale: of all patterns that match, a later one wins."""
    found = {
        scale: tuple(word for pattern, words in patterns.items() if fnmatchcase(row.id, pattern) for word in words)
        for scale, patterns in by_scale.items()
    }
    return replace(row, by_scale=tuple(found.items()))


def _as_read(row: Row, every: Mapping[str, Row], metrics: Mapping[str, Metric]) -> Row:
    """The row, where it reads another's runs, with that one's settings: so both have the same config and records.

    Raises `UserError` for a row that there is not, that has no runs either, or is of another model; for a heat map of
    no runs; and for a published value that a row of its kind cannot be measured for.
    """
    place = f"{row.table}: row {row.id}"
    for value in row.published:
        if (metrics[value.metric].needs == "interpretation") != bool(row.heat_map):
            what = f"reads the heat map {row.heat_map!r}" if row.heat_map else "reads no heat map"
            raise UserError(f"{place}: a published {value.metric} for a row that {what}")
    if bool(row.run_of) != bool(row.heat_map):
        raise UserError(f"{place}: run_of and heat_map come together: whose runs, and what of them")
    if not row.run_of:
        return row
    other = every.get(row.run_of)
    if other is None or other.run_of:
        why = "has no runs of its own" if other else "is no row"
        raise UserError(f"{place}: run_of={row.run_of}, which {why}{did_you_mean(row.run_of, every)}")
    if row.settings or row.scales or _model_of(row) != _model_of(other):
        raise UserError(
            f"{place}: reads the runs of {other.id}: it has that row's backbone, method and sparsities, and no "
            "overrides and scales of its own"
        )
    return replace(row, settings=other.settings, scales=other.scales, by_scale=other.by_scale)


def _model_of(row: Row) -> tuple[str, str, float, float]:
    return row.backbone, row.method, row.arch_sparsity_pct, row.data_sparsity_pct


def _generate(table: str, entries: list[dict[str, list[Any]]], known: Mapping[str, Row]) -> Iterable[Row]:
    for entry in entries:
        for values in itertools.product(*entry.values()):
            spec = dict(zip(entry, values, strict=True))
            id_ = row_id(spec["backbone"], spec["method"], spec["arch_sparsity_pct"], spec["data_sparsity_pct"])
            yield known.get(id_) or Row(table=table, id=id_, note="no published value", **spec)


def _read_published(
    path: Path, metrics: Mapping[str, Metric], sources: Mapping[str, Source]
) -> dict[str, list[PublishedValue]]:
    published: dict[str, list[PublishedValue]] = {}
    for place, record in _read_csv(path):
        if record["metric"] not in metrics:
            raise UserError(f"{place}: metric {record['metric']!r} unknown{did_you_mean(record['metric'], metrics)}")
        if record["source"] not in sources:
            raise UserError(f"{place}: source {record['source']!r} unknown{did_you_mean(record['source'], sources)}")
        if record["kind"] not in KINDS:
            raise UserError(f"{place}: kind {record['kind']!r} unknown; valid: {', '.join(KINDS)}")
        published.setdefault(record["row"], []).append(
            PublishedValue(
                metric=record["metric"],
                value=_number(record["value"], place),
                uncertainty=_number(record["uncertainty"] or "0", place),
                kind=record["kind"],
                source=record["source"],
                note=record["note"],
            )
        )
    return published


def _read_csv(path: Path) -> Iterable[tuple[str, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as stream:
        for number, record in enumerate(csv.DictReader(stream), start=2):
            yield f"{path.parent.name}/{path.name} line {number}", record


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{place}: {text!r} is not a number") from None
