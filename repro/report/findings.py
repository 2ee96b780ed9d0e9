"""Findings about the papers' code that affect how to interpret published values, from a table's `findings.yaml`.

A report shows each finding with its evidence, its remaining doubt, and the measurements of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from repro.errors import UserError, count_of, did_you_mean
from repro.locations import table_dirs
from repro.report.adopted import describe
from repro.report.cells import Results, RowCells
from repro.report.measures import gain, interval_of_gain
from repro.report.statistics import interval_words
from repro.tables.rows import Table
from repro.typed_files import read_yaml

FILE = "findings.yaml"


class Finding(BaseModel):
    """A finding. `compare` holds pairs of rows: the gain of the first over the second is evidence for the finding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    finding: str
    evidence: tuple[str, ...]
    doubt: str
    compare: tuple[tuple[str, str], ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    findings: tuple[Finding, ...]


def load_findings(table: Table) -> tuple[Finding, ...]:
    """Return the findings of a table. Raises `UserError` for an invalid key or a row that is not in the table."""
    paths = [path for folder in table_dirs() if (path := folder / table.name / FILE).is_file()]
    rows = {row.id for row in table.every_row}
    found = []
    for path in paths:
        for finding in read_yaml(path, _File).findings:
            for row in (row for pair in finding.compare for row in pair):
                if row not in rows:
                    raise UserError(f"{path}: {finding.id}: compare: no row {row!r}{did_you_mean(row, rows)}")
            found.append(finding)
    return tuple(found)


def rows_in_findings(table: Table) -> set[str]:
    """Return the rows that findings compare."""
    return {row for finding in load_findings(table) for pair in finding.compare for row in pair}


def describe_finding(finding: Finding, results: Results) -> Iterator[str]:
    """Yield the sentences of a finding: statement, evidence, doubt, and the measurements of runs at this scale."""
    rows = {row.row.id: row for row in (*results.rows, *results.others)}
    yield finding.finding
    yield from (f"evidence: {one}" for one in finding.evidence)
    yield f"doubt: {finding.doubt}"
    for first, second in finding.compare:
        yield f"{first} over {second}, {results.scale} scale: {_comparison(rows, first, second)}"
    for name in dict.fromkeys(name for pair in finding.compare for name in pair if name in rows):
        yield from (describe(results.table, rows[name].row, one) for one in rows[name].evidence.adopted)


def _comparison(rows: Mapping[str, RowCells], first: str, second: str) -> str:
    absent = [name for name in (first, second) if name not in rows]
    if absent:
        return f"{' and '.join(absent)} not run at this scale"
    one, other = rows[first].context, rows[second].context
    measured, text = gain(one, other), "no finished runs with the same seed"
    if measured.value is not None:
        interval = interval_of_gain(one.evidence, other.evidence)
        text = f"top-1 {measured.value:+.2f} points over {count_of(measured.n, 'seed')}"
        text += f" ({interval_words(interval, '+')})" if interval else ""
    params = f"{one.cost.params_m:.2f} M and {other.cost.params_m:.2f} M"
    return f"{text} ({params} parameters, of the published backbone)"
