"""Published orderings, tested at local scale: is a row with a higher published accuracy also higher here?

They are listed in `claims.yaml` (`orderings`). The answers are about small models on other images: they show whether
this code ranks methods as the paper does, and are no evidence for the published accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.errors import UserError, count_of
from repro.report.cells import Measured, Results, RowCells
from repro.report.claims import CLAIMS_FILE, Ordering, check_name, claims_files, load_claims_file
from repro.report.measures import gain, interval_of_gain
from repro.report.statistics import LEVEL, interval_words, level_of_each
from repro.report.verdicts import AGREES, CONTRADICTS, NOT_RUN, PARTIAL, UNDECIDED
from repro.tables.rows import Row, Table

ASKED_AT = ("local",)  # scale paper has the claims; at scale smoke, models have learnt nothing
METRIC = "top1_pct"


@dataclass(frozen=True)
class JudgedOrdering:
    """An ordering with its answer.

    Attributes:
        published: published difference between first and second row, in percentage points.
        measured: the difference measured here, paired by seed.
        interval: its interval, over seeds or over test images, whichever is wider; None if there is none.
        level: the confidence level of the interval, 1 - 5 % / k for k tested orderings (Bonferroni correction).
        verdict_alone: the verdict that a 95 % interval gives, as if no other ordering were tested.
    """

    ordering: Ordering
    published: float
    measured: Measured
    interval: tuple[float, float] | None
    verdict: str
    level: float
    verdict_alone: str

    @property
    def evidence(self) -> str:
        """`published +1.97; here +0.83 (95 % interval -0.40 to +2.06, paired by 3 seeds)`."""
        text = f"published {self.published:+.2f}"
        if self.measured.value is None:
            return f"{text}; not run here"
        spread = "" if self.interval is None else f"{interval_words(self.interval, '+', level=self.level)}, "
        alone = f"; alone, at 95 %: {self.verdict_alone}" if self.verdict_alone != self.verdict else ""
        return f"{text}; here {self.measured.value:+.2f} ({spread}{self.measured.seeds}){alone}"


def orderings_of(table: Table) -> tuple[Ordering, ...]:
    """Return the orderings about a table in all claims files, the project's first.

    Raises `UserError` for an unknown row, and for rows whose published accuracies are missing or not in this order.
    """
    rows = {row.id: row for row in table.every_row}
    found = [(path, ordering) for path in claims_files() for ordering in load_claims_file(path).orderings]
    own = [(path, ordering) for path, ordering in found if ordering.table == table.name]
    for path, ordering in own:
        place = f"{path}: {ordering.name}"
        for name in (ordering.above, ordering.below):
            check_name(name, rows, place, f"row of {table.name}")
        if published_points(ordering, rows[ordering.above], rows[ordering.below]) <= 0:
            raise UserError(f"{place}: the published {METRIC} are in another order; exchange above and below")
    return tuple(ordering for _, ordering in own)


def rows_in_orderings(table: Table, scale: str) -> set[str]:
    """Return the ids of the rows that the orderings about `table` compare; empty at scales without orderings."""
    asked = orderings_of(table) if scale in ASKED_AT else ()
    return {row for one in asked for row in (one.above, one.below)}


def published_points(ordering: Ordering, above: Row, below: Row) -> float:
    """Return the published difference, in percentage points. Raises `UserError` if a value is not published."""
    values = [row.best_published(METRIC) for row in (above, below)]
    if values[0] is None or values[1] is None:
        missing = ordering.above if values[0] is None else ordering.below
        raise UserError(f"{CLAIMS_FILE}: {ordering.name}: no published {METRIC} of {missing}")
    return values[0].value - values[1].value


def judge_orderings(results: Results, orderings: Sequence[Ordering] | None = None) -> tuple[JudgedOrdering, ...]:
    """Return the orderings about the table of `results` with their answers; empty at scales without orderings.

    Differences are paired by seed, on the same test images. An ordering agrees if the interval of its difference
    (`gain_interval`, as in the figures) is above zero, contradicts if it is below, and is undecided otherwise. The
    orderings whose seeds are all finished are tested, and share an error of 5 %: the level is `level_of_each`.
    """
    if results.scale not in ASKED_AT:
        return ()
    rows = {row.row.id: row for row in (*results.rows, *results.others)}
    asked = [
        (ordering, rows[ordering.above], rows[ordering.below])
        for ordering in (orderings_of(results.table) if orderings is None else orderings)
        if {ordering.above, ordering.below} <= rows.keys()
    ]
    gains = [gain(above.context, below.context) for _, above, below in asked]
    tests = sum(_is_tested(found, above) for found, (_, above, _) in zip(gains, asked, strict=True))
    level = level_of_each(tests)
    return tuple(_judge(*one, found, level) for found, one in zip(gains, asked, strict=True))


def _is_tested(measured: Measured, above: RowCells) -> bool:
    """Return whether a difference can be decided: a single seed tells only of the sampling error of the test images."""
    return measured.n > 1 and measured.n == len(above.evidence.runs)


def _judge(ordering: Ordering, above: RowCells, below: RowCells, measured: Measured, level: float) -> JudgedOrdering:
    published = published_points(ordering, above.row, below.row)
    if not measured.sample:
        return JudgedOrdering(ordering, published, measured, None, NOT_RUN, level, NOT_RUN)
    joint, alone = (interval_of_gain(above.evidence, below.evidence, each) for each in (level, LEVEL))
    if measured.n < len(above.evidence.runs):
        return JudgedOrdering(ordering, published, measured, joint, PARTIAL, level, PARTIAL)
    verdicts = [_verdict(interval if _is_tested(measured, above) else None) for interval in (joint, alone)]
    return JudgedOrdering(ordering, published, measured, joint, verdicts[0], level, verdicts[1])


def _verdict(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return UNDECIDED
    return AGREES if interval[0] > 0 else CONTRADICTS if interval[1] < 0 else UNDECIDED


def count_line(judged: Sequence[JudgedOrdering]) -> str:
    """Summarise the answers: `12 published orderings: 3 agree, 1 contradicts, 8 undecided`, and the level of each."""
    text = f"{count_of(len(judged), 'published ordering')}: {_counted([one.verdict for one in judged])}"
    level = judged[0].level if judged else LEVEL
    if level == LEVEL:
        return text
    alone = [one.verdict_alone for one in judged if one.verdict_alone in (AGREES, CONTRADICTS, UNDECIDED)]
    return (
        f"{text}; each tested at {100 * level:.4g} %, so that all together err in at most 5 % (Bonferroni); at 95 % "
        f"each, where chance alone decides 1 in 20: {_counted(alone)}"
    )


def _counted(verdicts: Sequence[str]) -> str:
    plural = {AGREES: "agree", CONTRADICTS: "contradict"}
    counts = [(verdict, verdicts.count(verdict)) for verdict in (AGREES, CONTRADICTS, UNDECIDED, PARTIAL, NOT_RUN)]
    return ", ".join(f"{n} {plural.get(verdict, verdict) if n > 1 else verdict}" for verdict, n in counts if n)
