"""Rows of published tables: pure data, read from `paper_tables/`.

A row is one line of a published table. It says what to run (backbone, method, sparsities) and what the paper and
its citing works report for it; how to run it is `repro.config`'s business.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from repro.errors import UserError, did_you_mean

TABLES_DIR = Path(__file__).resolve().parent.parent / "paper_tables"
KINDS = ("confirmed", "cited", "derived", "digitised")  # from the strongest evidence to the weakest
NEEDS = ("analysis", "device", "training", "interpretation")
PUBLISHED, ABLATIONS = "published", "ablations"  # row sets that a table need not define


@dataclass(frozen=True)
class PublishedValue:
    """One published number for one metric of one row. `uncertainty` is 0 where the source gives none."""

    metric: str
    value: float
    uncertainty: float
    kind: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a published table. Sparsities in percent, as in the row's name.

    `settings` are overrides of its own, for a row that differs from another in them (an ablation); `scales` are those
    that it is run at, empty for all. `by_scale` are overrides that its table has for it at some scales: smaller data,
    say, than those of the paper. `run_of` is the row whose runs this one reads, where it has none of its own: it says
    how well their heat map `heat_map` finds objects.
    """

    table: str
    id: str
    backbone: str
    method: str
    arch_sparsity_pct: float
    data_sparsity_pct: float
    note: str = ""
    published: tuple[PublishedValue, ...] = ()
    settings: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    by_scale: tuple[tuple[str, tuple[str, ...]], ...] = ()
    run_of: str = ""
    heat_map: str = ""

    @property
    def run_id(self) -> str:
        """The row that its records lie under: itself, unless it reads another's."""
        return self.run_of or self.id

    @property
    def overrides(self) -> tuple[str, ...]:
        """The Hydra overrides that make the default config this row's."""
        return (
            f"backbone={self.backbone}",
            f"method={self.method}",
            f"method.sparsity={self.arch_sparsity_pct / 100:g}",
            f"method.data_sparsity={self.data_sparsity_pct / 100:g}",
            *self.settings,
        )

    def overrides_at(self, scale: str) -> tuple[str, ...]:
        """The same for a run at this scale: what is the row's own wins over what its table says of the scale."""
        return (f"scale={scale}", *dict(self.by_scale).get(scale, ()), *self.overrides)

    def is_run_at(self, scale: str) -> bool:
        """Whether the row is run at this scale."""
        return not self.scales or scale in self.scales

    def best_published(self, metric: str) -> PublishedValue | None:
        """The value a verdict is held against: the strongest kind, and the first listed of that kind."""
        values = [value for value in self.published if value.metric == metric]
        return min(values, key=lambda value: KINDS.index(value.kind), default=None)


@dataclass(frozen=True)
class Metric:
    """A published column: its label, its tolerance with the reason, and what a measured value depends on.

    With `bound: upper` the published value is one that a measured value stays below, with `bound: lower` one that it
    reaches; otherwise one that it should meet. `device` is that of the published values, where they mean nothing on
    another: a part of its name. `dataset` is that of an `interpretation`: whose images heat maps were made of.
    """

    name: str
    label: str
    tolerance: float
    needs: str
    reason: str
    note: str = ""
    bound: str = ""
    device: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class Source:
    """Where a published value was read."""

    name: str
    citation: str
    where: str


@dataclass(frozen=True)
class Table:
    """A published table: its rows in the paper's order, its metrics in print order, its sources."""

    name: str
    title: str
    paper: str
    dataset: str
    figure: str
    macs_label: str
    rows: tuple[Row, ...]
    metrics: Mapping[str, Metric]
    sources: Mapping[str, Source]
    row_sets: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    default_sets: tuple[str, ...] = (PUBLISHED,)
    seeds: Mapping[str, int] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)

    @property
    def every_row(self) -> tuple[Row, ...]:
        """The published rows in the paper's order, then those that are only in a row set."""
        return tuple({row.id: row for rows in (self.rows, *self.row_sets.values()) for row in rows}.values())

    def default_seeds(self, scale: str) -> int:
        """How many seeds a row is run with where nobody says."""
        return self.seeds.get(scale, 1)

    def label(self, name: str) -> str:
        """How a backbone, method or data set is written for readers; the name itself where the table says nothing."""
        return self.labels.get(name, name)

    def dataset_of(self, row: str) -> str:
        """The data set that a row's published accuracies are of: its table's, unless the table says another."""
        return next((name for pattern, name in self.datasets.items() if fnmatchcase(row, pattern)), self.dataset)

    def reference(self, backbone: str) -> Row | None:
        """The row that savings and gains are counted from: the backbone's with nothing removed; None without one."""
        rows = (row for row in self.rows if row.backbone == backbone and not row.run_of)
        return next((row for row in rows if row.arch_sparsity_pct == 0 and row.data_sparsity_pct == 0), None)

    def run_row(self, row: Row) -> Row:
        """The row whose runs are this one's: itself, unless it reads another's."""
        return next(other for other in self.every_row if other.id == row.run_id) if row.run_of else row

    def select(self, patterns: Iterable[str] = (), scale: str | None = None) -> tuple[Row, ...]:
        """Rows by shell-style patterns (`deit_small/*`, `!*/dense`) and row-set names (`grid`).

        No positive pattern means the table's default row sets. Order is the table's; nothing is listed twice. With a
        `scale`, rows that are not run at it are left out.
        Raises `UserError` for a pattern that names no row, or only rows that are not run at this scale.
        """
        words = [word for pattern in patterns for word in pattern.split()]
        every = {row.id: row for row in self.every_row}
        sets = {PUBLISHED: self.rows, **self.row_sets}
        default = {row.id for name in self.default_sets for row in sets[name]}

        def matching(word: str) -> set[str]:
            if word in sets:
                return {row.id for row in sets[word]}
            found = {id_ for id_ in every if fnmatchcase(id_, word)}
            if not found:
                near = did_you_mean(word, [*every, *sets])
                raise UserError(f"{self.name}: no row matches {word!r}{near} (repro list {self.name} shows all)")
            return found

        wanted = [word for word in words if not word.startswith("!")]
        chosen: set[str] = set()
        for word in wanted:
            found = matching(word)
            here = {id_ for id_ in found if scale is None or every[id_].is_run_at(scale)}
            if not here:
                scales = ", ".join(sorted({name for id_ in found for name in every[id_].scales}))
                raise UserError(f"{self.name}: {word} is not run at scale {scale}, only at {scales}")
            # A glob speaks of the default rows first; rows that are only in a set come by the set's name or their own.
            chosen |= here if word in sets or not here & default else here & default
        if not wanted:
            chosen = {id_ for id_ in default if scale is None or every[id_].is_run_at(scale)}
        for word in words:
            if word.startswith("!"):
                chosen -= matching(word[1:])
        return tuple(row for id_, row in every.items() if id_ in chosen)


def row_id(backbone: str, method: str, arch_sparsity_pct: float, data_sparsity_pct: float) -> str:
    """`deit_small/dense`, `deit_small/svite-50`, `deit_small/svite_plus-5-50` (sparsity of data, then of weights)."""
    levels = [f"{pct:g}" for pct in (data_sparsity_pct, arch_sparsity_pct) if pct]
    return f"{backbone}/{'-'.join([method, *levels])}"


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
