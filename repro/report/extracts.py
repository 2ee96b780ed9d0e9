"""What a report shows of finished models only once `make figures` has taken it out of them: heads, patches, heat maps.

A report opens no checkpoint. It reads what `repro extract` and `repro interpret` have left in the records, and says so
where they have not been there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from repro.report.evidence import Evidence, SeedRun, one_line
from repro.report.histories import unreadable
from repro.rows import Table
from repro.runs.record import Record


def anatomies(every: Sequence[Evidence]) -> Iterator[tuple[Evidence, dict[str, Any]]]:
    """What was extracted of the first finished seed of each row."""
    for evidence, run in _first_finished(every):
        found = _record(run).anatomy()
        if found is not None:
            yield evidence, found


def awaited(table: Table, every: Sequence[Evidence], scale: str) -> str:
    """What of the figures is not there, and what to do about it; empty where nothing is missing.

    Heat maps are missing where no finished model with tokens has any: one is drawn of a table. Masks of runs whose
    config cannot be read are, too: nobody knows which variant of the row they are.
    """
    finished = list(_first_finished(every))
    with_tokens = [run for evidence, run in finished if evidence.config.model.tokens]
    missing = []
    if any(_record(run).anatomy() is None for _, run in finished):
        missing += ["heads left", "patches kept"]
    if with_tokens and all(_record(run).interpretation() is None for run in with_tokens):
        missing.append("heat maps over images")
    words = []
    if missing:
        command = f"make figures TABLE={table.name} SCALE={scale}"
        words += [f"Not drawn yet: {', '.join(missing)}. {command} takes them from the finished models."]
    if unread := unreadable([evidence for evidence in every if not evidence.row.run_of]):
        words += [f"Left out of the figures of masks: {one_line(str(unread[0]))}."]
        if more := len(unread) - 1:
            words += [f"And {more} more {'record' if more == 1 else 'records'} of these rows."]
    return " ".join(words)


def _first_finished(every: Sequence[Evidence]) -> Iterator[tuple[Evidence, SeedRun]]:
    for evidence in every:
        for run in evidence.runs.values():
            if run.path is not None and run.state == "done":
                yield evidence, run
                break


def _record(run: SeedRun) -> Record:
    assert run.path is not None
    return Record(run.path)
