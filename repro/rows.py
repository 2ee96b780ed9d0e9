"""Rows of published tables: pure data, which `repro.paper_tables` reads from the folder of that name.

A row is one line of a published table. It says what to run (backbone, method, sparsities) and what the paper and
its citing works report for it; how to run it is `repro.config`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from repro.errors import UserError, did_you_mean

KINDS = ("confirmed", "cited", "derived", "digitised")  # from the strongest evidence to the weakest
NEEDS = ("analysis", "device", "training", "interpretation")
PUBLISHED = "published"  # the row set that every table has


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
