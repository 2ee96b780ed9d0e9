"""The cell model: what was measured for one metric of one row, and how it compares with the published value.

`repro.report.measures` computes each value once. The frame, tables, page, terminal, claims and notes only render it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from repro.config.costs import macs_depend_on_data
from repro.config.signature import can_change_a_result
from repro.counting.cost import Cost
from repro.errors import count_of
from repro.report.evidence import Evidence
from repro.report.segmentation import Segmentation
from repro.report.statistics import LEVEL, mean_interval, median_interval
from repro.report.verdicts import (
    DECIDABLE,
    NO_PUBLISHED_VALUE,
    NOT_MEASURED,
    ON_CPU,
    judge,
    partial,
    tolerance,
    training_state,
)
from repro.runs.timing import Setting
from repro.tables.rows import Metric, PublishedValue, Row, Table

# Kinds of evidence, cheapest first. A count needs no training; a time needs a device.
COUNTED, TIMED, TRAINED = "counted", "timed", "trained"
KINDS_OF_EVIDENCE = (COUNTED, TIMED, TRAINED)
VERBS = {COUNTED: "counted", TIMED: "timed", TRAINED: "measured"}


@dataclass(frozen=True)
class Measured:
    """A measured value, or the reason why there is none.

    Attributes:
        evidence: one of `KINDS_OF_EVIDENCE`.
        value: a count, the median over turns, or the mean over seeds, in the metric's unit; None if there is none.
        sample: individual values of a time (by turn) or of a trained value (by seed).
        state: `DECIDABLE`, or the verdict of a cell that cannot be decided yet (`running`, `other scale`, ...).
        why_missing: what the cell is waiting for, as text.
        is_published_training: False if the value depends on training other than the published one.
        is_comparable: False if training, data set or device differ from those of the published value.
        setting: the setting in which a time was measured.
        note: why a count is an estimate, or what a time does not show; may be empty.
        is_paired: whether the sample holds differences between two rows, paired by seed.
        limits: the smallest and the largest possible value, at which intervals end.
    """

    evidence: str
    value: float | None = None
    sample: Mapping[int, float] = field(default_factory=dict)
    state: str = DECIDABLE
    why_missing: str = ""
    is_published_training: bool = True
    is_comparable: bool = True
    setting: Setting | None = None
    note: str = ""
    is_paired: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)

    @property
    def n(self) -> int:
        """Number of seeds or turns; 0 for a count."""
        return len(self.sample)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for a count, a time, or fewer than two seeds."""
        return statistics.stdev(self.sample.values()) if self.evidence == TRAINED and self.n > 1 else None

    @property
    def seeds(self) -> str:
        """The number of seeds of a trained value, as text: `3 seeds`, or `paired by 3 seeds`."""
        return f"{'paired by ' if self.is_paired else ''}{count_of(self.n, 'seed')}"

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the confidence interval of the value: zero width for a count, unbounded if the sample is too small.

        Raises `ValueError` if there is no value.
        """
        if self.value is None:
            raise ValueError("no value has no interval")
        if not self.sample:
            return self.value, self.value
        interval = mean_interval if self.evidence == TRAINED else median_interval
        return interval(self.sample.values(), level)

    @property
    def finite_interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None for a count, a missing value, or a sample that is too small."""
        if self.value is None or not self.sample:
            return None
        low, high = self.interval()
        return (max(low, self.limits[0]), min(high, self.limits[1])) if math.isfinite(low) else None


@dataclass(frozen=True)
class Cell:
    """A metric of a row: the measured value, the published value, and the verdict."""

    row: Row
    metric: Metric
    measured: Measured

    @property
    def published(self) -> PublishedValue | None:
        """The published value that the verdict uses; None if no source gives one."""
        return self.row.best_published(self.metric.name)

    @property
    def conflicting(self) -> tuple[PublishedValue, ...]:
        """Published values from other sources that contradict `published`."""
        return self.row.conflicting(self.metric)

    @property
    def delta(self) -> float | None:
        """Measured minus published value; None if they cannot be compared."""
        if self.published is None or self.measured.value is None or not self.measured.is_comparable:
            return None
        return self.measured.value - self.published.value

    @property
    def verdict(self) -> str:
        """The verdict, as defined in `repro.report.verdicts`."""
        measured, published = self.measured, self.published
        if published is None:
            return NO_PUBLISHED_VALUE
        if measured.state != DECIDABLE or measured.value is None:
            return measured.state
        interval = measured.interval() if measured.evidence == TIMED else ()
        verdict = judge(measured.value, published, self.metric, n=measured.n, std=measured.std, interval=interval)
        is_on_cpu = measured.setting is not None and measured.setting.kind == "CPU"
        return ON_CPU.get(verdict, verdict) if is_on_cpu else verdict

    @property
    def tolerance(self) -> float | None:
        """The largest difference that counts as reproduced; None without a published value."""
        if self.published is None:
            return None
        return tolerance(self.published, self.metric, self.measured.n, self.measured.std)


@dataclass(frozen=True)
class RowContext:
    """What is known about a row before its metrics are measured.

    Attributes:
        reference: evidence of the dense row; None if the backbone has no such row.
        is_published_training: whether the runs use the published training.
        wanted_seeds: number of finished seeds that a verdict on an accuracy requires.
        segmentation: heat map quality of a row that reads the heat maps of another row's runs.
        rung: the highest rung reached on the ladder of evidence, see `repro.report.ladder`.
    """

    evidence: Evidence
    reference: Evidence | None
    cost: Cost
    is_published_training: bool
    wanted_seeds: int
    segmentation: Segmentation | None = None
    rung: str = COUNTED

    @property
    def rests_on_data(self) -> bool:
        """Whether MACs are known only after a run has measured how many tokens its images keep."""
        return macs_depend_on_data(self.evidence.config.method)

    def training_state(self, n: int, run_state: str | None = None) -> str:
        """Return the state of a value measured over `n` finished seeds of the row."""
        state = self.evidence.state if run_state is None else run_state
        return training_state(n, state, self.wanted_seeds, is_published_training=self.is_published_training)

    @property
    def why_unfinished(self) -> str:
        """What a value of the published training is waiting for: `deit_small/dense: partial (2 of 3)`; may be empty."""
        n = self.evidence.n_done
        if not self.is_published_training or n >= self.wanted_seeds:
            return ""
        return f"{self.evidence.row.id}: {partial(n, self.wanted_seeds) if n else self.evidence.state}"


@dataclass(frozen=True)
class RowCells:
    """Everything that a report knows about one row: measured values and the table's cells, both by metric name."""

    context: RowContext
    measured: Mapping[str, Measured]
    cells: Mapping[str, Cell]

    @property
    def row(self) -> Row:
        """The row."""
        return self.context.evidence.row

    @property
    def evidence(self) -> Evidence:
        """The evidence from the row's records."""
        return self.context.evidence

    @property
    def state(self) -> str:
        """The state of the row's runs; once they are done, that of the heat map that the row reads, if it reads any."""
        found, state = self.context.segmentation, self.evidence.state
        if state != "done" or found is None or not found.missing:
            return state
        return partial(found.seeds, len(self.evidence.runs)) if found.seeds else NOT_MEASURED

    @property
    def reason(self) -> str:
        """Why the row is not finished."""
        found = self.context.segmentation
        return self.evidence.reason or (found.missing if found is not None and self.evidence.state == "done" else "")


@dataclass(frozen=True)
class Results:
    """The rows of a report, in its order.

    Attributes:
        overrides: Hydra overrides that the runs were launched with.
        others: rows that were not requested but that claims, findings or orderings name.
    """

    table: Table
    scale: str
    rows: Sequence[RowCells]
    overrides: Sequence[str] = ()
    others: Sequence[RowCells] = ()

    def of_backbones(self, names: Collection[str]) -> Results:
        """Return the results restricted to the rows of these backbones."""
        return replace(self, rows=[row for row in self.rows if row.row.backbone in names])

    @property
    def own_rows(self) -> list[RowCells]:
        """The rows with runs of their own."""
        return [row for row in self.rows if not row.row.reads_runs_of]

    @property
    def effective_overrides(self) -> str:
        """The overrides that can change a result, as text: not folders, workers or the launcher."""
        return " ".join(filter(can_change_a_result, self.overrides))

    @property
    def cells(self) -> Iterator[Cell]:
        """All cells of the requested rows."""
        return (cell for row in self.rows for cell in row.cells.values())

    @property
    def evidence(self) -> list[Evidence]:
        """The evidence of the requested rows, without duplicates for rows that share their runs."""
        return list({row.row.run_id: row.evidence for row in reversed(self.rows)}.values())[::-1]
