"""The rendered content of a report: tables, claims, orderings, notes and facts. Writers only lay it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from repro.errors import count_of
from repro.report.cells import Cell, Results
from repro.report.claim_verdicts import JudgedClaim
from repro.report.columns import grids
from repro.report.format import symbol, tone
from repro.report.grid import Grid
from repro.report.local_data import local_data_of
from repro.report.notes import Note, notes
from repro.report.orderings import JudgedOrdering, count_line, judge_orderings
from repro.report.summary import Summary, contradiction
from repro.report.verdicts import NO_PUBLISHED_VALUE
from repro.tables.rows import Source

_TONES = ("good", "off", "bad", "quiet")


@dataclass(frozen=True)
class View:
    """A complete report, ready to be written."""

    results: Results
    summary: Summary
    facts: tuple[tuple[str, str], ...]
    compact: tuple[Grid, ...]
    wide: tuple[Grid, ...]
    claims: tuple[JudgedClaim, ...]
    orderings: tuple[JudgedOrdering, ...]
    notes: tuple[Note, ...] = field(default=())

    @property
    def title(self) -> str:
        """The table's title."""
        return self.results.table.title

    @property
    def row_ids(self) -> set[str]:
        """The rows that the table shows."""
        return {row.id for grid in self.compact for section in grid.sections for row in section.rows}

    @property
    def sources(self) -> list[Source]:
        """The sources of published values and claims."""
        used = {value.source for row in self.results.rows for value in row.row.published}
        used |= {judged.claim.source for judged in self.claims}
        return [source for name, source in self.results.table.sources.items() if name in used]

    @property
    def contradictions(self) -> list[tuple[Cell, str]]:
        """The contradicted cells, each described."""
        return [(cell, contradiction(cell)) for cell in self.summary.contradicted]

    @property
    def ordering_count(self) -> str:
        """The answers, counted: `25 published orderings: 8 agree, 17 undecided`."""
        return count_line(self.orderings)

    @property
    def orderings_run(self) -> list[JudgedOrdering]:
        """The orderings for which both rows have been run."""
        return [judged for judged in self.orderings if judged.measured.sample]

    @property
    def ordering_heading(self) -> str:
        """The heading: `Published orderings at local scale (digits: no evidence for ImageNet)`."""
        data, differs = local_data_of(self.results)
        published = differs.removeprefix("not ")
        return f"Published orderings at {self.results.scale} scale ({data}: no evidence for {published})"

    @staticmethod
    def legend(shown: Iterable[Grid]) -> list[tuple[str, str]]:
        """Return the symbols in the columns that are shown, each with its verdicts."""
        entries = [entry for grid in shown for entry in grid.entries]
        verdicts = {verdict for entry in entries for verdict in (entry.verdict, *entry.verdicts_in_text)}
        verdicts -= {"", NO_PUBLISHED_VALUE}
        words: dict[str, list[str]] = {}
        for verdict in sorted(verdicts, key=lambda verdict: (_TONES.index(tone(verdict)), verdict)):
            words.setdefault(symbol(verdict), []).append(verdict.partition(" (")[0])  # without numbers of seeds
        return [(mark, ", ".join(dict.fromkeys(found))) for mark, found in words.items()]

    @staticmethod
    def spread_legend(shown: Iterable[Grid]) -> str:
        """Return the meaning of `±` after a measured value; empty if none that is shown has it."""
        has_spread = any("±" in entry.text for grid in shown for entry in grid.entries)
        return "±: sample standard deviation over seeds" if has_spread else ""

    @staticmethod
    def marks_legend(shown: Iterable[Grid]) -> str:
        """Return where the marks of numbers are explained; empty if none that is shown has one."""
        is_marked = any(entry.mark or entry.published_mark for grid in shown for entry in grid.entries)
        return "Raised letters: see Marks in the notes." if is_marked else ""


def view(results: Results, claims: Sequence[JudgedClaim], summary: Summary) -> View:
    """Render a report."""
    return View(
        results,
        summary,
        facts(results),
        grids(results, is_wide=False),
        grids(results, is_wide=True),
        tuple(claims),
        judge_orderings(results),
        notes(results),
    )


def facts(results: Results) -> tuple[tuple[str, str], ...]:
    """Return facts about the table and the runs behind it, as (name, text) pairs."""
    runs = results.evidence
    commits = sorted({commit for evidence in runs for commit in evidence.commits})
    timings = [evidence.timing.setting.text for evidence in runs if evidence.timing is not None]
    finished = sum(row.state == "done" for row in results.rows)
    is_run = any(one.n_done for one in runs)
    records = (
        f"{count_of(sum(one.n_records for one in runs), 'run record')}, {sum(one.n_done for one in runs)} of them done"
    )
    return (
        ("Paper", results.table.paper),
        ("Scale", results.scale),
        ("Rows", f"{_chosen(results)}, {finished} of them finished in all seeds"),
        ("Generated from", records),
        ("Commits", ", ".join(commits) or ("unknown: run without a clone" if is_run else "none: no finished record")),
        *((("Timed on", "; ".join(dict.fromkeys(timings))),) if timings else ()),
        *((("Overrides", results.effective_overrides),) if results.effective_overrides else ()),
    )


def _chosen(results: Results) -> str:
    """Return the number of rows, `42`, or `8 of 42 rows chosen` if they are not all rows of a default report."""
    default = {row.id for row in results.table.select([], results.scale)}
    chosen = {row.row.id for row in results.rows}
    if default <= chosen:
        return str(len(chosen))
    others = f" and {len(chosen - default)} more" if chosen - default else ""
    return f"{len(chosen & default)} of {count_of(len(default), 'row')} chosen{others}"
