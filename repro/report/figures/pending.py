"""Figures of finished models that need `make figures` first: heads, patches, heat maps.

A report opens no checkpoints. It reads what `repro extract` and `repro interpret` have written into the records, and
reports what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repro.report.evidence import Evidence
from repro.report.next_commands import figures_command
from repro.runs.record import Record
from repro.tables.rows import Table


def extracts(
    every: Sequence[Evidence], read: Callable[[Record], dict[str, Any] | None]
) -> Iterator[tuple[Evidence, Record, dict[str, Any]]]:
    """Yield what `read` returns for the first finished seed of each row for which it is not None.

    `read` is `Record.anatomy` or `Record.interpretation`.
    """
    for evidence in every:
        for record in evidence.finished.values():
            found = read(record)
            if found is not None:
                yield evidence, record, found
                break


def pending_figures(table: Table, every: Sequence[Evidence], scale: str) -> str:
    """Return which figures are missing and what to do about it; empty if none are.

    Heat maps are missing if no finished model with tokens has any, because a table has one figure of them.
    """
    finished = [evidence for evidence in every if evidence.n_done]
    with_tokens = [evidence for evidence in finished if evidence.config.model.tokens]
    missing = []
    if len(list(extracts(finished, Record.anatomy))) < len(finished):
        missing += ["heads left", "patches kept"]
    if with_tokens and not list(extracts(with_tokens, Record.interpretation)):
        missing.append("heat maps over images")
    if not missing:
        return ""
    command = figures_command(table.name, scale)
    return f"Not drawn yet: {', '.join(missing)}. {command} extracts them from the finished models."
