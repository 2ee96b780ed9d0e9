"""Rows of published tables: what to run (backbone, method, sparsities) and which values are published for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, with_config

from repro.errors import UserError, did_you_mean

Kind = Literal["confirmed", "cited", "derived", "digitised"]  # from the strongest evidence to the weakest
KINDS: tuple[str, ...] = get_args(Kind)
Needs = Literal["analysis", "device", "training", "interpretation"]
PUBLISHED = "published"  # the row set that every table has
SINGLE_RUNS = "by_hand"  # the folder of runs that belong to no table (`repro train`), in place of a table's name


@dataclass(frozen=True)
class PublishedValue:
    """One published number for one metric of one row. `uncertainty` is 0 if the source states none."""

    metric: str
    value: float
    uncertainty: float
    kind: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a published table.

    A row without runs of its own evaluates those of `reads_runs_of`: it scores their heat maps, of the kind `heat_map`.
    """

    table: str
    id: str
    backbone: str
    method: str
    arch_sparsity_pct: float  # nominal sparsities of weights and tokens, as in the id
    data_sparsity_pct: float
    note: str = ""
    published: tuple[PublishedValue, ...] = ()  # several per metric if sources differ
    own_overrides: tuple[str, ...] = ()  # in which the row differs from another (an ablation)
    scales: tuple[str, ...] = ()  # that it is run at; empty for all
    by_scale: tuple[tuple[str, tuple[str, ...]], ...] = ()  # overrides of its table at a scale, such as smaller data
    reads_runs_of: str = ""
    heat_map: str = ""

    @property
    def run_id(self) -> str:
        """The row whose records it reads: itself, unless it reads another row's runs."""
        return self.reads_runs_of or self.id

    @property
    def overrides(self) -> tuple[str, ...]:
        """The Hydra overrides that make the default config this row's."""
        return (
            f"backbone={self.backbone}",
            f"method={self.method}",
            f"method.sparsity={self.arch_sparsity_pct / 100:g}",
            f"method.data_sparsity={self.data_sparsity_pct / 100:g}",
            *self.own_overrides,
        )

    def overrides_at(self, scale: str) -> tuple[str, ...]:
        """The overrides of a run at this scale; the row's own take precedence over those of its table."""
        return (f"scale={scale}", *dict(self.by_scale).get(scale, ()), *self.overrides)

    def is_run_at(self, scale: str) -> bool:
        """Whether the row is run at this scale."""
        return not self.scales or scale in self.scales

    def best_published(self, metric: str) -> PublishedValue | None:
        """The value that a verdict compares with: the first of the strongest kind."""
        values = [value for value in self.published if value.metric == metric]
        return min(values, key=lambda value: KINDS.index(value.kind), default=None)

    def conflicting(self, metric: Metric) -> tuple[PublishedValue, ...]:
        """Return the published values that contradict `best_published`.

        Two sources are in conflict if a model that meets the one exactly would not reproduce the other: they differ by
        more than the metric's tolerance and the uncertainties of both.
        """
        best = self.best_published(metric.name)
        if best is None:
            return ()
        return tuple(
            value
            for value in self.published
            if value.metric == metric.name
            and abs(value.value - best.value) > metric.tolerance + value.uncertainty + best.uncertainty + 1e-9
        )


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Metric:
    """A published column; `tolerance` is how far a measured value may be from the published one, and `reason` why."""

    name: str
    label: str
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    needs: Needs  # what a measured value depends on
    reason: str
    note: str = ""
    # `upper`: a measured value must stay below the published one; `lower`: it must reach it; empty: it must equal it.
    bound: Literal["", "upper", "lower"] = ""
    device: str = ""  # part of the name of the device that the published values are of, if they hold on no other
    dataset: str = ""  # of an `interpretation`, the data set whose images have heat maps


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
        """The number of seeds that a row is run with by default."""
        return self.seeds.get(scale, 1)

    def label(self, name: str) -> str:
        """The display name of a backbone, method or data set; its own name if the table has none."""
        return self.labels.get(name, name)

    def dataset_of(self, row: str) -> str:
        """The data set of a row's published accuracies: its table's, unless the table names another for it."""
        return next((name for pattern, name in self.datasets.items() if fnmatchcase(row, pattern)), self.dataset)

    def reference(self, backbone: str) -> Row | None:
        """The dense row of a backbone, which savings and gains refer to; None without one."""
        rows = (row for row in self.rows if row.backbone == backbone and not row.reads_runs_of)
        return next((row for row in rows if row.arch_sparsity_pct == 0 and row.data_sparsity_pct == 0), None)

    def source_row(self, row: Row) -> Row:
        """The row whose runs this one reads: itself, unless it reads another row's."""
        return next(other for other in self.every_row if other.id == row.run_id) if row.reads_runs_of else row

    def select(self, patterns: Iterable[str] = (), scale: str | None = None) -> tuple[Row, ...]:
        """Rows that match any of the patterns (`deit_small/*`, `grid`) and none of those that start with `!`.

        Each row appears once, in the table's order. Without a positive pattern, those of the default row sets. With a
        `scale`, rows that are not run at it are left out. Raises `UserError` for a pattern that matches no row, or only
        rows that are not run at this scale.
        """
        words = [word for pattern in patterns for word in pattern.split()]
        included = [word for word in words if not word.startswith("!")]
        excluded = {row.id for word in words if word.startswith("!") for row in self._matching(word[1:])}
        default = {row.id for name in self.default_sets for row in self._matching(name)}
        selected: set[str] = set() if included else default
        for word in included:
            rows = self._matching(word)
            matching = {row.id for row in rows if scale is None or row.is_run_at(scale)}
            if not matching:
                scales = ", ".join(sorted({name for row in rows for name in row.scales}))
                raise UserError(f"{self.name}: {word} is not run at scale {scale}, only at {scales}")
            # A glob means rows of the default sets if it matches any; others need their set's name or their own.
            is_set = word == PUBLISHED or word in self.row_sets
            selected |= matching if is_set else matching & default or matching
        chosen = selected - excluded
        return tuple(row for row in self.every_row if row.id in chosen and (scale is None or row.is_run_at(scale)))

    def _matching(self, word: str) -> tuple[Row, ...]:
        """The rows of the row set `word`, or those whose ids match it."""
        sets = {PUBLISHED: self.rows, **self.row_sets}
        rows = sets[word] if word in sets else tuple(row for row in self.every_row if fnmatchcase(row.id, word))
        if not rows and word not in sets:
            near = did_you_mean(word, [*(row.id for row in self.every_row), *sets])
            raise UserError(f"{self.name}: no row matches {word!r}{near} (repro list {self.name} shows all)")
        return rows


def row_id(backbone: str, method: str, arch_sparsity_pct: float, data_sparsity_pct: float) -> str:
    """`deit_small/dense`, `deit_small/svite-50`, `deit_small/svite_plus-5-50` (sparsity of data, then of weights)."""
    levels = [f"{pct:g}" for pct in (data_sparsity_pct, arch_sparsity_pct) if pct]
    return f"{backbone}/{'-'.join([method, *levels])}"
