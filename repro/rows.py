"""Rows of published tables: pure data, read from `paper_tables/`.

A row is one line of a published table. It says what to run (backbone, method, sparsities) and what the paper and
its citing works report for it; how to run it is `repro.config`'s business.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from repro.errors import UserError, did_you_mean

TABLES_DIR = Path(__file__).resolve().parent.parent / "paper_tables"
KINDS = ("confirmed", "cited", "derived", "digitised")  # from the strongest evidence to the weakest
NEEDS = ("analysis", "device", "training")


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

    `variant` are the overrides, beyond method and sparsities, that make a row of ours another one than the paper's.
    """

    table: str
    id: str
    backbone: str
    method: str
    arch_sparsity_pct: float
    data_sparsity_pct: float
    note: str = ""
    published: tuple[PublishedValue, ...] = ()
    variant: tuple[str, ...] = ()

    @property
    def overrides(self) -> tuple[str, ...]:
        """The Hydra overrides that make the default config this row's."""
        return (
            f"backbone={self.backbone}",
            f"method={self.method}",
            f"method.sparsity={self.arch_sparsity_pct / 100:g}",
            f"method.data_sparsity={self.data_sparsity_pct / 100:g}",
            *self.variant,
        )

    def best_published(self, metric: str) -> PublishedValue | None:
        """The value a verdict is held against: the strongest kind, and the first listed of that kind."""
        values = [value for value in self.published if value.metric == metric]
        return min(values, key=lambda value: KINDS.index(value.kind), default=None)


@dataclass(frozen=True)
class Metric:
    """A published column: its label, its tolerance with the reason, and what a measured value depends on.

    `is_bound`: a published value is the most that the measured one may be.
    """

    name: str
    label: str
    tolerance: float
    needs: str
    reason: str
    note: str = ""
    is_bound: bool = False


@dataclass(frozen=True)
class Source:
    """Where a published value was read."""

    name: str
    citation: str
    where: str


@dataclass(frozen=True)
class Table:
    """A published table: its rows in the paper's order, its metrics in print order, its sources.

    `default_rows` and `default_seeds` say, by scale, what is run where nobody names rows or a number of seeds: every
    published row and one seed where they say nothing.
    """

    name: str
    title: str
    paper: str
    dataset: str
    figure: str
    rows: tuple[Row, ...]
    metrics: Mapping[str, Metric]
    sources: Mapping[str, Source]
    row_sets: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    default_rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_seeds: Mapping[str, int] = field(default_factory=dict)

    def seeds(self, scale: str) -> int:
        """How many seeds a run at this scale has where nobody says."""
        return self.default_seeds.get(scale, 1)

    def words(self, patterns: Iterable[str], scale: str) -> list[str]:
        """Patterns for `select`: the scale's own rows where none of these names any."""
        given = [word for pattern in patterns for word in pattern.split()]
        named = any(not word.startswith("!") for word in given)
        return given if named else [*self.default_rows.get(scale, ()), *given]

    def label(self, name: str) -> str:
        """How a backbone, method or data set is written for readers; the name itself where the table says nothing."""
        return self.labels.get(name, name)

    def reference(self, backbone: str) -> Row | None:
        """The row that savings and gains are counted from: the backbone's with nothing removed; None without one."""
        rows = (row for row in self.rows if row.backbone == backbone)
        return next((row for row in rows if row.arch_sparsity_pct == 0 and row.data_sparsity_pct == 0), None)

    def select(self, patterns: Iterable[str] = ()) -> tuple[Row, ...]:
        """Rows by shell-style patterns (`deit_small/*`, `!*/dense`) and row-set names (`grid`).

        No positive pattern means every published row. Order is the table's; nothing is listed twice.
        Raises `UserError` for a pattern that names no row.
        """
        words = [word for pattern in patterns for word in pattern.split()]
        every = {row.id: row for rows in (self.rows, *self.row_sets.values()) for row in rows}
        sets = {"published": self.rows, **self.row_sets}

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
            # A glob speaks of published rows first; rows that are only in a set come by the set's name or their own.
            published = found & {row.id for row in self.rows}
            chosen |= found if word in sets or not published else published
        if not wanted:
            chosen = {row.id for row in self.rows}
        for word in words:
            if word.startswith("!"):
                chosen -= matching(word[1:])
        return tuple(row for id_, row in every.items() if id_ in chosen)


def row_id(
    backbone: str, method: str, arch_sparsity_pct: float, data_sparsity_pct: float, variant: str | None = None
) -> str:
    """`deit_small/dense`, `deit_small/svite-50`, `deit_small/svite_plus-5-50` (sparsity of data, then of weights).

    A variant's name comes last: `vit_base/spartan-90-beta5`.
    """
    levels = [f"{pct:g}" for pct in (data_sparsity_pct, arch_sparsity_pct) if pct]
    return f"{backbone}/{'-'.join([method, *levels, *([variant] if variant else [])])}"


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
    rows: dict[str, Row] = {}
    for place, record in _read_csv(folder / "rows.csv"):
        if record["row"] in rows:
            raise UserError(f"{place}: row {record['row']!r} is there twice")
        rows[record["row"]] = Row(
            table=name,
            id=record["row"],
            backbone=record["backbone"],
            method=record["method"],
            arch_sparsity_pct=_number(record["arch_sparsity_pct"], place),
            data_sparsity_pct=_number(record["data_sparsity_pct"], place),
            note=record["note"],
            published=tuple(published.pop(record["row"], ())),
        )
    if published:
        raise UserError(f"{folder.name}/published.csv: values for rows not in rows.csv: {', '.join(sorted(published))}")
    variants: dict[str, list[str]] = about.get("variants", {})
    sets = {
        set_name: tuple(_generate(name, entries, rows, variants))
        for set_name, entries in about.get("row_sets", {}).items()
    }
    return Table(
        name=name,
        title=about["title"],
        paper=about["paper"],
        dataset=about["dataset"],
        figure=about["figure"],
        rows=tuple(rows.values()),
        metrics=metrics,
        sources=sources,
        row_sets=sets,
        labels=about.get("labels", {}),
        default_rows={scale: tuple(words) for scale, words in about.get("default_rows", {}).items()},
        default_seeds=about.get("default_seeds", {}),
    )


def _generate(
    table: str, entries: list[dict[str, list[Any]]], known: Mapping[str, Row], variants: Mapping[str, list[str]]
) -> Iterable[Row]:
    for entry in entries:
        for values in itertools.product(*entry.values()):
            spec = dict(zip(entry, values, strict=True))
            variant = spec.pop("variant", None)
            if variant is not None and variant not in variants:
                raise UserError(f"{table}/table.yaml: no variant {variant!r}{did_you_mean(variant, variants)}")
            id_ = row_id(
                spec["backbone"], spec["method"], spec["arch_sparsity_pct"], spec["data_sparsity_pct"], variant
            )
            overrides = tuple(variants[variant]) if variant else ()
            yield known.get(id_) or Row(table=table, id=id_, note="no published value", variant=overrides, **spec)


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
