"""Rows of published tables: what to run (backbone, method, sparsities), and the values published for it."""

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
PUBLISHED = "published"  # the name of the row set that every table has
SINGLE_RUNS = "by_hand"  # replaces the table's name for runs that belong to no table (`repro train`)


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
    """One row of a published table.

    A row without runs of its own scores heat maps of the kind `heat_map` from the runs of the row `reads_runs_of`.
    """

    table: str
    id: str
    backbone: str
    method: str
    arch_sparsity_pct: float  # nominal sparsity of the weights, as in the id
    data_sparsity_pct: float  # nominal sparsity of the tokens, as in the id
    note: str = ""
    published: tuple[PublishedValue, ...] = ()  # several per metric if sources differ
    own_overrides: tuple[str, ...] = ()  # such as those of an ablation
    scales: tuple[str, ...] = ()  # the scales at which it is run; empty for all
    by_scale: tuple[tuple[str, tuple[str, ...]], ...] = ()  # the table's overrides at a scale, such as smaller data
    reads_runs_of: str = ""
    heat_map: str = ""

    @property
    def run_id(self) -> str:
        """The id of the row whose records it reads: its own, unless it reads another row's runs."""
        return self.reads_runs_of or self.id

    @property
    def overrides(self) -> tuple[str, ...]:
        """The Hydra overrides that turn the default config into that of this row."""
        return (
            f"backbone={self.backbone}",
            f"method={self.method}",
            f"method.sparsity={self.arch_sparsity_pct / 100:g}",
            f"method.data_sparsity={self.data_sparsity_pct / 100:g}",
            *self.own_overrides,
        )

    def overrides_at(self, scale: str) -> tuple[str, ...]:
        """Return the overrides of a run at this scale. Those of the row take precedence over those of its table."""
        return (f"scale={scale}", *dict(self.by_scale).get(scale, ()), *self.overrides)

    def is_run_at(self, scale: str) -> bool:
        """Return whether the row is run at this scale."""
        return not self.scales or scale in self.scales

    def best_published(self, metric: str) -> PublishedValue | None:
        """Return the value that a verdict compares with, the first of the strongest kind; None if there is none."""
        values = [value for value in self.published if value.metric == metric]
        return min(values, key=lambda value: KINDS.index(value.kind), default=None)

    def conflicting(self, metric: Metric) -> tuple[PublishedValue, ...]:
        """Return the published values that contradict `best_published`.

        Two values contradict each other if they differ by more than the metric's tolerance plus both uncertainties: a
        model that meets one of them exactly would not reproduce the other.
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
    """A column of published values."""

    name: str
    label: str
    # The largest difference between a measured and the published value that counts as reproduced, in the metric's unit.
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    needs: Needs  # what a measured value requires
    reason: str  # the reason for this tolerance
    note: str = ""
    # Whether a published value is an upper bound, a lower bound, or (if empty) the value to reproduce.
    bound: Literal["", "upper", "lower"] = ""
    device: str = ""  # part of the name of the published values' device, if they hold on no other
    dataset: str = ""  # for `needs: interpretation`, the data set whose images have heat maps


@dataclass(frozen=True)
class Source:
    """Where published values come from."""

    name: str
    citation: str
    where: str


@dataclass(frozen=True)
class Table:
    """A published table: its rows and metrics in the order of the paper, its row sets, and its sources."""

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
        """The published rows in the paper's order, then the rows that are only in another row set."""
        return tuple({row.id: row for rows in (self.rows, *self.row_sets.values()) for row in rows}.values())

    def default_seeds(self, scale: str) -> int:
        """Return the number of seeds with which a row is run by default at this scale."""
        return self.seeds.get(scale, 1)

    def label(self, name: str) -> str:
        """Return the display name of a backbone, method or data set; the name itself if the table has none."""
        return self.labels.get(name, name)

    def dataset_of(self, row: str) -> str:
        """Return the data set of a row's published accuracies: the table's, unless `datasets` names another."""
        return next((name for pattern, name in self.datasets.items() if fnmatchcase(row, pattern)), self.dataset)

    def reference(self, backbone: str) -> Row | None:
        """Return the dense row of a backbone, to which savings and gains refer; None without one."""
        rows = (row for row in self.rows if row.backbone == backbone and not row.reads_runs_of)
        return next((row for row in rows if row.arch_sparsity_pct == 0 and row.data_sparsity_pct == 0), None)

    def source_row(self, row: Row) -> Row:
        """Return the row whose runs this row reads: itself, unless it reads another row's."""
        return next(other for other in self.every_row if other.id == row.run_id) if row.reads_runs_of else row

    def select(self, patterns: Iterable[str] = (), scale: str | None = None) -> tuple[Row, ...]:
        """Return the rows that match a pattern (`deit_small/*`, `grid`) and no pattern that starts with `!`.

        Each row appears once, in the table's order. Without a positive pattern, the rows of the default row sets are
        selected. With a `scale`, rows that are not run at that scale are omitted. Raises `UserError` for a pattern that
        matches no row, or only rows that are not run at this scale, and for patterns that together select no row.
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
            # A glob that matches rows of the default sets selects only those. Other rows are selected by the name of
            # their set, or by a pattern that matches no default row.
            is_set = word == PUBLISHED or word in self.row_sets
            selected |= matching if is_set else matching & default or matching
        chosen = selected - excluded
        rows = tuple(row for row in self.every_row if row.id in chosen and (scale is None or row.is_run_at(scale)))
        if words and not rows:
            raise UserError(f"{self.name}: no row is selected (repro list {self.name} shows all)")
        return rows

    def _matching(self, word: str) -> tuple[Row, ...]:
        """Return the rows of the row set `word`, or those whose ids match it."""
        sets = {PUBLISHED: self.rows, **self.row_sets}
        rows = sets[word] if word in sets else tuple(row for row in self.every_row if fnmatchcase(row.id, word))
        if not rows and word not in sets:
            near = did_you_mean(word, [*(row.id for row in self.every_row), *sets])
            raise UserError(f"{self.name}: no row matches {word!r}{near} (repro list {self.name} shows all)")
        return rows


def row_id(backbone: str, method: str, arch_sparsity_pct: float, data_sparsity_pct: float) -> str:
    """Return the id of a row; sparsities of 0 are omitted, and that of the tokens comes first.

    Examples: `deit_small/dense`, `deit_small/svite-50`, `deit_small/svite_plus-5-50`.
    """
    levels = [f"{pct:g}" for pct in (data_sparsity_pct, arch_sparsity_pct) if pct]
    return f"{backbone}/{'-'.join([method, *levels])}"
