"""Figures of finished models that need `make figures` first: heads, patches, heat maps.

A report opens no checkpoints. It reads what `repro extract` and `repro interpret` have written into the records, and
reports what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from repro.errors import count_of
from repro.report.evidence import Evidence, one_line
from repro.report.figures.mask_history import unreadable
from repro.report.next_commands import figures_command
from repro.runs.record import Record
from repro.tables.rows import Table


def anatomies(every: Sequence[Evidence]) -> Iterator[tuple[Evidence, dict[str, Any]]]:
    """Yield what was extracted from the first finished seed of each row."""
    for evidence, record in _first_finished(every):
        found = record.anatomy()
        if found is not None:
            yield evidence, found


def pending_figures(table: Table, every: Sequence[Evidence], scale: str) -> str:
    """Return which figures are missing and what to do about it; empty if none are.

    Heat maps are missing if no finished model with tokens has any, because a table has one figure of them. Masks are
    missing for runs whose config cannot be read, because it is unknown which variant of the row they are.
    """
    finished = list(_first_finished(every))
    with_tokens = [record for evidence, record in finished if evidence.config.model.tokens]
    missing = []
    if any(record.anatomy() is None for _, record in finished):
        missing += ["heads left", "patches kept"]
    if with_tokens and all(record.interpretation() is None for record in with_tokens):
        missing.append("heat maps over images")
    words = []
    if missing:
        command = figures_command(table.name, scale)
        words += [f"Not drawn yet: {', '.join(missing)}. {command} takes them from the finished models."]
    if unread := unreadable([evidence for evidence in every if not evidence.row.reads_runs_of]):
        words += [f"Left out of the figures of masks: {one_line(str(unread[0]))}."]
        if more := len(unread) - 1:
            words += [f"And {count_of(more, 'more record')} of these rows."]
    return " ".join(words)


def _first_finished(every: Sequence[Evidence]) -> Iterator[tuple[Evidence, Record]]:
    for evidence in every:
        for record in list(evidence.finished.values())[:1]:
            yield evidence, record
