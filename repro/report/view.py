"""What a reader sees of a frame: grouped lines of worded cells, and the notes below. The writers only dress it.

The CSV holds everything; the view leaves out what would be the same in every line (sources, empty columns) and
says the rest in notes, so that nothing is lost.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from repro.report.claims import DOES_NOT_HOLD, HOLDS, JudgedClaim, judge_claims
from repro.report.costs import PARAMS_BY_TRAINING
from repro.report.local_data import local_title
from repro.report.notes import KIND_MARKS, Note, notes
from repro.report.segmentation import INTERPRETATION, local_images
from repro.report.times import MASKED_DENSE, TIMED_OTHERWISE
from repro.report.trimming import said_once
from repro.report.verdicts import ABOVE, BELOW, FAILED, NO_PUBLISHED_VALUE, NOT_MEASURED, OTHER_SCALE, REPRODUCED
from repro.rows import Metric, PublishedValue, Row, Table

T = TypeVar("T")

NOTHING = "–"
ESTIMATED_MARK = "e"
MASKED_MARK = "m"
# A metric with fewer published values than this gets no columns of its own: its values are told in a note.
_FEWEST_FOR_COLUMNS = 2
# The measured column of a metric, where it has another name than the metric.
_MEASURED_COLUMNS = {"top1_pct": "top1_best_pct"}


@dataclass(frozen=True)
class Column:
    """A column: the group it stands under (empty for none), its own head, and whether it holds numbers."""

    group: str
    head: str
    is_numeric: bool = True

    @property
    def title(self) -> str:
        """Group and head in one, for writers with one line of heads."""
        return f"{self.group} {self.head}".strip()


@dataclass(frozen=True)
class Cell:
    """A cell: its words, a footnote mark (or none), and the tone of a verdict for writers with colours."""

    text: str = NOTHING
    mark: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Section:
    """The lines of one backbone."""

    label: str
    lines: tuple[tuple[Cell, ...], ...]


CLAIM_HEADS = ("Claim", "Source", "Verdict", "By the published values", "Evidence")


@dataclass(frozen=True)
class View:
    """A whole report, ready to be written: facts above, sections, notes below."""

    title: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    notes: tuple[Note, ...]
    claims: tuple[tuple[Cell, ...], ...] = ()

    @property
    def spans(self) -> tuple[tuple[str, int], ...]:
        """The upper line of heads: each group with the number of columns under it."""
        return tuple((group, len(list(same))) for group, same in itertools.groupby(self.columns, lambda c: c.group))

    @property
    def starts(self) -> tuple[int, ...]:
        """The columns, counted from 1, at which a group begins; the table itself begins at the first."""
        return tuple(itertools.accumulate((span for _, span in self.spans[:-1]), initial=1))[1:]


def view(
    frame: pd.DataFrame, table: Table, overrides: Sequence[str] = (), claims: Sequence[JudgedClaim] | None = None
) -> View:
    """The reader's view of `frame`, in its order, with sections for each backbone's rows, the paper's and others.

    `claims` are the claims about the table as they are judged by more rows than `frame` has; by default by its own.
    """
    lines: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    rows = rows_by_id(table)
    columned = [metric for metric in table.metrics.values() if has_columns(table, metric)]
    heads = _columns(frame, table, columned)
    different = {metric.name for metric in columned if _has_deltas(frame, metric)}
    elsewhere = {metric.name for metric in table.metrics.values() if local_images(frame, table, metric)}
    sections = tuple(
        Section(
            label,
            tuple(_line(line, rows[line["row"]], table, columned, different, elsewhere, len(heads)) for line in same),
        )
        for label, same in itertools.groupby(lines, lambda line: section_label(table, rows[line["row"]]))
    )
    once = said_once(heads, [line for section in sections for line in section.lines], NOTHING)
    left_out = Note("Columns left out", tuple(f"{heads[index].title}: {words}" for index, words in once.items()))
    told = [metric for metric in table.metrics.values() if metric not in columned]
    judged = judge_claims(frame, table) if claims is None else claims
    below = notes(lines, rows, table, told, local_title(frame, table))
    return View(
        table.title,
        facts(frame, table, overrides),
        _without(heads, once),
        tuple(Section(section.label, tuple(_without(line, once) for line in section.lines)) for section in sections),
        (*((left_out,) if once else ()), *below),
        tuple(map(claim_cells, judged)),
    )


def _without(values: Sequence[T], left_out: Collection[int]) -> tuple[T, ...]:
    return tuple(value for index, value in enumerate(values) if index not in left_out)


def claim_cells(judged: JudgedClaim) -> tuple[Cell, ...]:
    """A claim as a line under `CLAIM_HEADS`."""
    claim = judged.claim
    evidence = (*judged.evidence, f"tolerance {claim.tolerance:g} ({claim.reason})")
    verdict = f"{judged.verdict}: {judged.reason}" if judged.reason else judged.verdict
    return (
        Cell(claim.statement),
        Cell(claim.source),
        Cell(verdict, tone=tone(judged.verdict)),
        Cell(judged.by_published or NOTHING, tone="quiet"),
        Cell("; ".join(evidence)),
    )


def facts(frame: pd.DataFrame, table: Table, overrides: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """The lines above a table: what it is and what it was made from."""
    commits = sorted({commit for text in frame["commits"] for commit in text.split()})
    settings = [setting for setting in dict.fromkeys(frame["time_setting"]) if setting]
    by_id = rows_by_id(table)
    # Several rows may be about the same runs.
    runs = frame[~frame["row"].map(lambda row: by_id[row].run_id).duplicated()]
    return (
        ("Paper", table.paper),
        ("Scale", ", ".join(dict.fromkeys(frame["scale"]))),
        ("Rows", f"{_chosen(frame, table)}, {int((frame['state'] == 'done').sum())} of them finished in all seeds"),
        ("Generated from", f"{int(runs['n_records'].sum())} run records, {int(runs['n_seeds'].sum())} of them done"),
        ("Commits", ", ".join(commits) or "none: no finished record"),
        *((("Timed on", "; ".join(settings)),) if settings else ()),
        *((("Overrides", " ".join(overrides)),) if overrides else ()),
    )


def _chosen(frame: pd.DataFrame, table: Table) -> str:
    """How many rows there are: `42`, or `8 of 42 rows chosen` of those that a report has where nobody chooses."""
    usual = {row.id for row in table.select([], frame["scale"].iloc[0])}
    chosen = set(frame["row"])
    if usual <= chosen:
        return str(len(frame))
    others = f" and {len(chosen - usual)} more" if chosen - usual else ""
    return f"{len(chosen & usual)} of {len(usual)} rows chosen{others}"


def rows_by_id(table: Table) -> dict[str, Row]:
    """Every row of a table, those that are only in a row set among them."""
    return {row.id: row for row in table.every_row}


def section_label(table: Table, row: Row) -> str:
    """What stands above the lines of a backbone; rows that the paper does not have stand apart."""
    is_published = any(row.id == other.id for other in table.rows)
    return f"{table.label(row.backbone)}{'' if is_published else ', not rows of the paper'}"


def has_columns(table: Table, metric: Metric) -> bool:
    """Whether enough rows of the table have a published value for the metric."""
    return sum(row.best_published(metric.name) is not None for row in table.rows) >= _FEWEST_FOR_COLUMNS


def number(value: float | None, digits: int = 2) -> str:
    """A measured number with its digits; a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def published_number(published: PublishedValue) -> str:
    """A published number with the digits that its source gives: 52.0 to a twentieth, 43 to a half, 79.22."""
    shown = f"{published.value:g}"
    digits = len(shown.partition(".")[2])
    if published.uncertainty:
        digits = max(digits, math.ceil(-math.log10(2 * published.uncertainty) - 1e-9))
    return f"{published.value:.{digits}f}"


def delta(difference: float) -> str:
    """Measured less published, with its sign; a dash where one of them is not there."""
    return NOTHING if math.isnan(difference) else f"{round(difference, 2) + 0.0:+.2f}"  # no -0.00


def delta_unit(metric: Metric) -> str:
    """What a difference of two values is in: two percentages differ by points, all else by what their label says."""
    found = re.search(r"\(([^()]+)\)$", metric.label)
    unit = found[1] if found else ""
    return "points" if unit in ("%", "") else unit


def _has_deltas(frame: pd.DataFrame, metric: Metric) -> bool:
    """Whether the frame holds a difference for the metric at all: accuracies of another scale have none."""
    return bool(frame[f"{metric.name}_delta"].notna().any())


def tone(verdict: str) -> str:
    """How a verdict looks where there are colours: good, off, bad or quiet."""
    return {
        REPRODUCED: "good",
        HOLDS: "good",
        ABOVE: "off",
        BELOW: "off",
        DOES_NOT_HOLD: "off",
        FAILED: "bad",
    }.get(verdict, "quiet")


def with_spread(mean: float, std: float) -> str:
    """Mean and, where there is one, the standard deviation over seeds."""
    return number(mean) if math.isnan(std) else f"{number(mean)} ± {number(std)}"


def _columns(frame: pd.DataFrame, table: Table, columned: Sequence[Metric]) -> tuple[Column, ...]:
    heads = [Column("", "Row", is_numeric=False)]
    for metric in table.metrics.values():
        elsewhere = local_images(frame, table, metric)
        if metric in columned:
            heads += [
                Column(metric.label, "measured"),
                Column(metric.label, "published"),
                *([Column(metric.label, f"delta ({delta_unit(metric)})")] if _has_deltas(frame, metric) else []),
                Column(metric.label, "verdict", is_numeric=False),
            ]
        elif metric.name in frame.columns:
            heads.append(Column(metric.label, "measured"))
        if elsewhere:
            heads.append(Column(metric.label, elsewhere))
    local = local_title(frame, table)
    if local:
        heads.append(Column("", local))
    return (*heads, Column("", "runs", is_numeric=False))


def _line(
    line: Mapping[str, Any],
    row: Row,
    table: Table,
    columned: Sequence[Metric],
    different: Collection[str],
    elsewhere: Collection[str],
    width: int,
) -> tuple[Cell, ...]:
    cells = [Cell(row.id)]
    for metric in table.metrics.values():
        if metric in columned:
            published = row.best_published(metric.name)
            verdict = line[f"{metric.name}_verdict"]
            cells += [
                measured_cell(line, metric),
                Cell(published_number(published), KIND_MARKS[published.kind]) if published else Cell(),
                *([Cell(delta(line[f"{metric.name}_delta"]))] if metric.name in different else []),
                Cell() if verdict == NO_PUBLISHED_VALUE else Cell(verdict, tone=tone(verdict)),
            ]
        elif metric.name in line:
            cells.append(measured_cell(line, metric))
        if metric.name in elsewhere:
            cells.append(Cell(with_spread(line[f"local_{metric.name}"], line[f"local_{metric.name}_std"])))
    if len(cells) + 2 == width:
        cells.append(Cell(with_spread(line["local_top1_best_pct"], line["local_top1_std_pct"])))
    return (*cells, Cell(line["state"], tone="bad" if line["state"] == FAILED else "quiet"))


def measured_cell(line: Mapping[str, Any], metric: Metric) -> Cell:
    """What was measured or counted for a metric, with its mark."""
    if metric.needs == "training":
        if line["local_data"] and line["n_seeds"]:
            return Cell(OTHER_SCALE, tone="quiet")
        # A metric counted from others (a gain) has no measured column: published + delta.
        column = _MEASURED_COLUMNS.get(metric.name)
        if column is None:
            return Cell(number(line[f"{metric.name}_published"] + line[f"{metric.name}_delta"]))
        return Cell(with_spread(line[column], line["top1_std_pct"]))
    value = line[metric.name]
    if metric.needs == INTERPRETATION:
        if not line["heat_map"] or not math.isnan(value):
            return Cell(with_spread(value, line[f"{metric.name}_std"]))
        is_elsewhere = not math.isnan(line[f"local_{metric.name}"])
        return Cell(OTHER_SCALE if is_elsewhere else NOT_MEASURED, tone="quiet")
    if metric.needs == "device":
        note = line["time_note"]
        mark = MASKED_MARK if MASKED_DENSE in note else ""
        if not math.isnan(value):
            return Cell(number(value, 1), mark)
        if line["time_setting"] and TIMED_OTHERWISE not in note:  # timed, but this is no number of that device
            return Cell(NOT_MEASURED, mark, "quiet")
        return Cell("no speed-up" if note == MASKED_DENSE else note.partition(";")[0] or NOTHING, mark, "quiet")
    is_of_params = line["cost_note"] == PARAMS_BY_TRAINING
    is_estimate = bool(line["cost_note"]) and metric.needs == "analysis" and (metric.name == "params_m") == is_of_params
    return Cell(number(value), ESTIMATED_MARK if is_estimate else "")
