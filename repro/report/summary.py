"""The summary of a report: how many published values hold, by kind of evidence, and which ones do not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from repro.config.published_training import PUBLISHED_SCALE
from repro.errors import count_of
from repro.report.adopted import weights_verdict
from repro.report.cells import COUNTED, KINDS_OF_EVIDENCE, TIMED, TRAINED, VERBS, Cell, Results
from repro.report.claim_verdicts import JudgedClaim
from repro.report.format import measured_number, published_number
from repro.report.local_data import local_data_of
from repro.report.next_commands import launch_command
from repro.report.verdicts import (
    CONTRADICTED,
    DOES_NOT_HOLD,
    HOLDS,
    NO_PUBLISHED_VALUE,
    NOT_MEASURED,
    ON_CPU,
    REPRODUCED,
)
from repro.tables.rows import Table
from repro.tables.rungs import MINI, RUNGS

SCHEMA = 1
OTHERS_WEIGHTS = "weights of others"


@dataclass(frozen=True)
class EvidenceCount:
    """Number of cells with a published value by verdict, for one kind of evidence."""

    kind: str
    verdicts: Mapping[str, int]

    @property
    def published(self) -> int:
        """Number of cells with a published value."""
        return sum(self.verdicts.values())

    @property
    def holds(self) -> int:
        """Number of cells that reproduce the published value."""
        return self.verdicts.get(REPRODUCED, 0)

    @property
    def does_not_hold(self) -> int:
        """Number of cells that contradict the published value."""
        return sum(self.verdicts.get(verdict, 0) for verdict in CONTRADICTED)

    def words(self, noun: str = "") -> str:
        """Format the counts: `41 of 42 hold, 1 does not`, or `0 of 35 decided`; `noun` follows the total."""
        total = count_of(self.published, noun) if noun else str(self.published)
        if not self.holds and not self.does_not_hold:
            return f"0 of {total} decided"
        without = f", {self.does_not_hold} {'does' if self.does_not_hold == 1 else 'do'} not"
        return f"{self.holds} of {total} {_hold(self.holds)}{without if self.does_not_hold else ''}"

    @property
    def undecided(self) -> Mapping[str, int]:
        """Number of all other cells by verdict."""
        return {verdict: n for verdict, n in self.verdicts.items() if verdict not in (REPRODUCED, *CONTRADICTED)}


@dataclass(frozen=True)
class Summary:
    """The main results of a report.

    Attributes:
        about: one sentence about the scale.
        evidence: counts for each kind of evidence, including kinds without published values.
        contradicted: the cells that contradict their published value.
        weights: counts of verdicts of third-party weights on the published accuracies of their rows.
        ladder: number of rows by highest rung reached.
        claims: number of claims by verdict.
    """

    table: Table
    scale: str
    about: str
    row_ids: tuple[str, ...]
    n_finished_runs: int
    evidence: tuple[EvidenceCount, ...]
    contradicted: tuple[Cell, ...]
    claims: Mapping[str, int]
    weights: EvidenceCount
    ladder: Mapping[str, int]

    @property
    def tone(self) -> str:
        """`off` if a value does not hold, `good` if runs are finished and every value holds, otherwise `quiet`."""
        if self.contradicted:
            return "off"
        is_decided = not any(count.undecided for count in self.evidence)
        return "good" if is_decided and self.n_finished_runs else "quiet"

    @property
    def without_runs(self) -> str:
        """The sentence that says that no run is finished; empty otherwise."""
        if self.n_finished_runs:
            return ""
        has_counts = any(count.kind == COUNTED and count.holds + count.does_not_hold for count in self.evidence)
        decided = ": only counts are decided" if has_counts else ""
        return f"No run is finished{decided}. {launch_command(self.table.name, self.scale)} starts the runs."

    @property
    def lines(self) -> list[str]:
        """The summary as sentences: missing runs, contradictions, counts by kind of evidence, claims, rungs, scale."""
        contradicted = [f"Does not hold: {cell.row.id}, {contradiction(cell)}." for cell in self.contradicted]
        start = [*filter(None, [self.without_runs]), *contradicted, *self.count_lines]
        return [*start, *filter(None, [self.ladder_line]), self.about]

    @property
    def ladder_line(self) -> str:
        """Number of rows by highest rung.

        `Rows by their highest evidence (counted, local, mini, weights, paper): 38 local, 4 weights.`

        Empty if no row of the report has runs of its own.
        """
        if not self.ladder:
            return ""
        rungs = ", ".join(f"{n} {rung}" for rung, n in self.ladder.items())
        return f"Rows by their highest evidence ({', '.join(RUNGS)}): {rungs}."

    @property
    def count_lines(self) -> list[str]:
        """One sentence for each kind of evidence with published values, and one for the claims."""
        counts = [count for count in (*self.evidence, self.weights) if count.published]
        return [*map(self.count_line, counts), *self._claims_line()]

    @property
    def overview(self) -> str:
        """The summary in one line: `counted 41 of 42 hold, 1 does not; timed 0 of 3 decided; ...`."""
        counts = [f"{count.kind} {count.words()}" for count in (*self.evidence, self.weights) if count.published]
        holds = self.claims.get(HOLDS, 0)
        claims = [f"claims {holds} of {sum(self.claims.values())} {_hold(holds)}"] if self.claims else []
        return "; ".join([*(["no run is finished"] if self.without_runs else []), *counts, *claims])

    def count_line(self, count: EvidenceCount) -> str:
        """Return `Counted: 41 of 42 published values hold, 1 does not.`, with what undecided values need, if any."""
        start = f"{count.kind.capitalize()}: {count.words('published value')}"
        if not count.undecided:
            return f"{start}."
        undecided = ", ".join(f"{n} {verdict}" for verdict, n in count.undecided.items())
        return f"{start} ({undecided}){self._next_step(count)}."

    def _next_step(self, count: EvidenceCount) -> str:
        if count.kind == TIMED and {NOT_MEASURED, *ON_CPU.values()} & count.undecided.keys():
            return f"; they need a GPU: repro bench time {self.table.name}"
        if count.kind == TRAINED and self.scale != PUBLISHED_SCALE:
            names = dict.fromkeys(self.table.label(self.table.dataset_of(row)) for row in self.row_ids)
            data = " and ".join(names)
            command = launch_command(self.table.name, PUBLISHED_SCALE)
            return f"; they need the published training on {data}: {command}"
        return ""

    def _claims_line(self) -> Iterator[str]:
        if self.claims:
            yield f"Claims: {', '.join(claims_words(verdict, n) for verdict, n in self.claims.items())}."

    def as_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "table": self.table.name,
            "scale": self.scale,
            "about": self.about,
            "row_ids": list(self.row_ids),
            "finished_runs": self.n_finished_runs,
            "evidence": {
                count.kind: {
                    "published": count.published,
                    "holds": count.holds,
                    "does_not_hold": count.does_not_hold,
                    "undecided": dict(count.undecided),
                }
                for count in (*self.evidence, self.weights)
            },
            "highest_evidence": dict(self.ladder),
            "does_not_hold": [_cell_json(cell) for cell in self.contradicted],
            "claims": dict(self.claims),
            "sentences": self.lines,
        }


def summarise_results(results: Results, claims: tuple[JudgedClaim, ...]) -> Summary:
    """Summarise the rows of a report and the claims about its table."""
    published = [cell for cell in results.cells if cell.published is not None]
    verdicts = Counter(claim.verdict for claim in claims)
    weights = Counter(
        weights_verdict(results.table, row.row, one) for row in results.own_rows for one in row.evidence.adopted
    )
    del weights[NO_PUBLISHED_VALUE]
    rungs = Counter(row.context.rung for row in results.own_rows)
    order = sorted(verdicts, key=lambda verdict: (verdict != DOES_NOT_HOLD, verdict != HOLDS, verdict))
    return Summary(
        results.table,
        results.scale,
        about_scale(results),
        tuple(row.row.id for row in results.rows),
        sum(evidence.n_done for evidence in results.evidence),
        tuple(
            EvidenceCount(kind, Counter(_verdict(cell) for cell in published if cell.measured.evidence == kind))
            for kind in KINDS_OF_EVIDENCE
        ),
        tuple(cell for cell in published if cell.verdict in CONTRADICTED),
        {verdict: verdicts[verdict] for verdict in order},
        EvidenceCount(OTHERS_WEIGHTS, weights),
        {rung: n for rung in RUNGS if (n := rungs[rung])},
    )


def _hold(n: int) -> str:
    return HOLDS if n == 1 else "hold"


def claims_words(verdict: str, n: int) -> str:
    """Format the number of claims with a verdict: `1 holds`, `2 hold on CPU`, `3 not measured`."""
    if n > 1:
        verdict = re.sub(f"^{HOLDS}", "hold", re.sub(f"^{DOES_NOT_HOLD}", "do not hold", verdict))
    return f"{n} {verdict}"


def about_scale(results: Results) -> str:
    """Return a sentence that explains the scale."""
    data, differs = local_data_of(results)
    if not data:
        return f"Scale {results.scale}: the published training on {results.table.label(results.table.dataset)}."
    if results.scale == PUBLISHED_SCALE:
        return f"Scale paper: trained on {data}, {differs}; accuracies are not held against published ones."
    accuracies = "Their accuracies only test the code"
    size = "a few training steps of each row" if results.scale == "smoke" else "small models of the same family"
    if results.scale == MINI:
        size, accuracies = "the published backbones", "Accuracies on small images are not held against published ones"
    return (
        f"Scale {results.scale}: {size}, trained on {data} ({differs}). {accuracies}; "
        "counts are those of the published models."
    )


def contradiction(cell: Cell) -> str:
    """Describe a contradiction: `MACs (G): counted 2.79, published 2.7`."""
    assert cell.published is not None
    verb = VERBS[cell.measured.evidence]
    value, published = measured_number(cell), published_number(cell.published)
    return f"{cell.metric.label}: {verb} {value}, published {published}"


def _cell_json(cell: Cell) -> dict[str, Any]:
    assert cell.published is not None
    return {
        "row": cell.row.id,
        "metric": cell.metric.name,
        "evidence": cell.measured.evidence,
        "measured": cell.measured.value,
        "published": cell.published.value,
        "tolerance": cell.tolerance,
        "verdict": cell.verdict,
    }


def _verdict(cell: Cell) -> str:
    """Return the verdict, without the number of seeds if it is partial."""
    return cell.verdict.partition(" (")[0]
