"""Formatting of numbers, published values and verdicts, shared by all outputs."""

from __future__ import annotations

import math
import re

from repro.report.cells import Cell, Measured
from repro.report.verdicts import (
    ABOVE,
    AGREES,
    BELOW,
    CONTRADICTS,
    DOES_NOT_HOLD,
    FAILED,
    HOLDS,
    NO_PUBLISHED_VALUE,
    ON_CPU,
    REPRODUCED,
    RUNNING,
    UNDECIDED,
)
from repro.tables.rows import KINDS, Metric, PublishedValue

NOTHING = "–"
ESTIMATED_MARK = "e"
MASKED_MARK = "m"
MARKS = {ESTIMATED_MARK: "estimate", MASKED_MARK: "masks on dense matrices save no time"}
CONFLICT_MARK = "x"
KIND_MARKS = dict(zip(KINDS, ("", "c", "d", "g"), strict=True))
# Shown in addition to colour, so that verdicts are readable in greyscale. In brackets: evidence that decides nothing.
_SYMBOLS = {REPRODUCED: "✓", ABOVE: "▲", BELOW: "▼", UNDECIDED: "?", FAILED: "✗", RUNNING: "…", NO_PUBLISHED_VALUE: ""}
_SYMBOLS |= {on_cpu: f"({_SYMBOLS[verdict]})" for verdict, on_cpu in ON_CPU.items()}
NOT_DECIDED = "○"  # other scale, missing, not measured, partial
_TONES = {REPRODUCED: "good", HOLDS: "good", ABOVE: "off", BELOW: "off", DOES_NOT_HOLD: "off", FAILED: "bad"}
_TONES |= {AGREES: "good", CONTRADICTS: "off"}


def symbol(verdict: str) -> str:
    """Return the symbol of a verdict; empty if there is no published value."""
    return _SYMBOLS.get(verdict, NOT_DECIDED)


def tone(verdict: str) -> str:
    """Return the tone of a verdict, which determines its colour: good, off, bad or quiet."""
    return _TONES.get(verdict, "quiet")


def number(value: float | None, digits: int = 2) -> str:
    """Format a number with `digits` decimals; a dash for None or NaN."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def digits_of(metric: Metric) -> int:
    """Return the number of decimals of a measured value."""
    if metric.needs != "device":
        return 2
    return 1 if metric.name.endswith("_pct") else 0 if metric.name.endswith("_s") else 2


def measured_number(cell: Cell) -> str:
    """Format the measured value of a cell, with the standard deviation over seeds if there is one."""
    return with_spread(cell.measured, digits_of(cell.metric))


def with_spread(measured: Measured, digits: int = 2) -> str:
    """Format a value with its standard deviation, `79.90 ± 0.10`; without one for fewer than two seeds."""
    text = number(measured.value, digits)
    return text if measured.std is None else f"{text} ± {number(measured.std)}"


def published_number(published: PublishedValue) -> str:
    """Format a published number with the precision of its source: 52.0 if known to 0.05, 43 if to 0.5, 79.22."""
    text = f"{published.value:g}"
    digits = len(text.partition(".")[2])
    if published.uncertainty:
        digits = max(digits, math.ceil(-math.log10(2 * published.uncertainty) - 1e-9))
    return f"{published.value:.{digits}f}"


def describe(published: PublishedValue) -> str:
    """Describe a published value: `71.81 ± 0.03 (digitised, svite_figure: the line drawn in the figure)`."""
    spread = f" ± {published.uncertainty:g}" if published.uncertainty else ""
    note = f": {published.note}" if published.note else ""
    return f"{published.value:g}{spread} ({published.kind}, {published.source}{note})"


def published_mark(cell: Cell) -> str:
    """Return the marks of a published value: its kind, and whether sources disagree."""
    assert cell.published is not None
    return KIND_MARKS[cell.published.kind] + (CONFLICT_MARK if cell.conflicting else "")


def describe_conflict(cell: Cell) -> str:
    """Describe the published value that is used, why, and the values that contradict it; empty without a conflict."""
    if cell.published is None or not cell.conflicting:
        return ""
    is_strongest = all(value.kind != cell.published.kind for value in cell.conflicting)
    why = (
        "its evidence is of the strongest kind"
        if is_strongest
        else "it is the first of the strongest kind in published.csv"
    )
    others = "; ".join(describe(value) for value in cell.conflicting)
    return f"{describe(cell.published)} decides, because {why}; in conflict with {others}"


def delta(difference: float | None) -> str:
    """Format measured minus published value with its sign; a dash if they cannot be compared."""
    return NOTHING if difference is None else f"{round(difference, 2) + 0.0:+.2f}"  # no -0.00


def delta_unit(metric: Metric) -> str:
    """Return the unit of a difference: points for percentages, otherwise the unit in the label's brackets."""
    found = re.search(r"\(([^()]+)\)$", metric.label)
    unit = found[1] if found else ""
    return "points" if unit in ("%", "") else unit


def source_url(where: str) -> str:
    """Return the URL of a source that is a paper on arXiv or a repository; empty for anything else."""
    if found := re.search(r"arXiv (\d{4}\.\d{4,5})", where):
        return f"https://arxiv.org/abs/{found[1]}"
    if found := re.search(r"github\.com/[\w.-]+/[\w.-]*\w", where):
        return f"https://{found[0]}"
    return ""
