"""What the records on disk say about one row: the state and the result of each seed, and where they come from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.composition import compose
from repro.config import Config
from repro.errors import UserError
from repro.report.verdicts import partial
from repro.rows import Row, Table
from repro.runs.contents import RESULT_SCHEMA
from repro.runs.files import shown
from repro.runs.record import Record, record_for
from repro.runs.status import STALE_AFTER_S, Status
from repro.runs.timing import Timing, read_timing, timings_beside
from repro.signature import signatures

# The state of a row without a finished seed is the first of these that one of its seeds is in.
_LIVELIEST_FIRST = ("running", "requeued", "submitted", "failed", "interrupted", "cancelled", "planned", "missing")
# Composing asks where the images are; a report reads none, and the place is no part of a run's signature.
_NO_IMAGES = "data.root=not_read_by_a_report"


@dataclass(frozen=True)
class SeedRun:
    """One run as its record tells it. `state` is status.json's, or `missing`, or `interrupted` for a silent one."""

    state: str
    reason: str = ""
    result: Mapping[str, Any] | None = None
    commit: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class Evidence:
    """All that is known of a row at one scale: its config, its runs by seed, and how fast its model is here.

    `folder` is where the row's records at this scale are; it need not exist.
    """

    row: Row
    config: Config
    runs: Mapping[int, SeedRun]
    folder: Path
    timing: Timing | None = None
    timings_beside: Sequence[Timing] = ()  # at other batches than the column's
    is_as_published: bool = True  # no override has changed what the row's own config would give

    @property
    def n_done(self) -> int:
        """Finished seeds."""
        return sum(run.state == "done" for run in self.runs.values())

    @property
    def n_records(self) -> int:
        """Records found on disk, finished or not."""
        return sum(run.path is not None for run in self.runs.values())

    @property
    def commits(self) -> list[str]:
        """Short commits behind the finished seeds; a `+` marks code that differed from its commit."""
        return sorted({run.commit for run in self.runs.values() if run.state == "done" and run.commit})

    @property
    def state(self) -> str:
        """The state of the row over its seeds."""
        return row_state(run.state for run in self.runs.values())

    @property
    def reason(self) -> str:
        """Why a seed is not finished: the reasons of failures, a silent process, or that the method has no training."""
        if not self.config.method.is_trainable and not self.n_done:
            return "no training for this method yet"
        reasons: dict[str, list[int]] = {}
        for seed, run in self.runs.items():
            if run.reason or (run.state != "done" and self.n_done):
                words = f"{run.state}: {run.reason}" if run.reason else run.state
                reasons.setdefault(words, []).append(seed)
        if len(self.runs) == 1:
            return next((run.reason for run in self.runs.values()), "")
        return "; ".join(f"seed {', '.join(map(str, seeds))} {words}" for words, seeds in reasons.items())

    def values(self, key: str) -> dict[int, float]:
        """A number of result.json by seed, for the finished seeds. Raises `UserError` where there is none."""
        found = {}
        for seed, run in self.runs.items():
            if run.result is None:
                continue
            value = run.result.get(key)
            if value is None:
                raise UserError(f"{run.path}/result.json: no {key}; remove the folder to run it again")
            if not isinstance(value, int | float):
                raise UserError(f"{run.path}/result.json: {key} should be a number, not {shown(value)}")
            found[seed] = float(value)
        return found


def row_state(states: Iterable[str]) -> str:
    """One word over seeds: done, partial (n of k), or the liveliest state where none is done."""
    every = list(states)
    done = every.count("done")
    if done:
        return "done" if done == len(every) else partial(done, len(every))
    return min(every, key=_LIVELIEST_FIRST.index)


def read_evidence(
    table: str, row: Row, scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str], now: float
) -> Evidence:
    """Read what there is of a row. `now` in Unix seconds tells a live run from one that died without a word."""
    words = [_NO_IMAGES, *row.overrides_at(scale), f"seed={seeds[0]}"]
    first = compose([*words, *overrides])
    is_as_published = not overrides or first.signature == compose(words).signature
    known = signatures(first, seeds)
    runs = {}
    for seed in seeds:
        config = first.model_copy(update={"seed": seed})
        place = {"table": table, "row": row.run_id, "scale": config.scale.name, "seed": seed, "signature": known[seed]}
        runs[seed] = _read_run(record_for(root, config, table, row.run_id, known[seed]), place, now)
    folder = record_for(root, first, table, row.run_id, known[seeds[0]]).path.parent
    timing, beside = read_timing(root, table, row.id), timings_beside(root, table, row.id)
    return Evidence(row, first, runs, folder, timing, beside, is_as_published)


def read_table(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str] = ()
) -> list[Evidence]:
    """What there is of each of `rows`, in their order, now."""
    return [read_evidence(table.name, row, scale, seeds, root, overrides, time.time()) for row in rows]


def _read_run(record: Record, place: Mapping[str, Any], now: float) -> SeedRun:
    """What the record of the run at `place`, in a result's own words, tells of it."""
    if not record.path.is_dir():
        return SeedRun("missing")
    status = record.status()
    # A result is written last: where there is one the run is done, though it was killed before it could say so.
    result = record.result()
    if result is None:
        return _unfinished(record, status, now)
    if result.get("schema") != RESULT_SCHEMA:
        raise UserError(
            f"{record.path}/result.json: schema {result.get('schema')!r}, this report reads {RESULT_SCHEMA}; "
            "report with the code that wrote it, or remove the folder to run it again"
        )
    for key, value in place.items():
        if result[key] != value:
            raise UserError(
                f"{record.path}/result.json: of another run: its {key} is {result[key]}, the record's {value}; "
                "remove the folder to run it again"
            )
    provenance = record.provenance()
    commit = str(provenance.get("commit") or "")[:8]
    return SeedRun(
        "done", "", result, commit + "+" if commit and provenance.get("dirty_diff_sha256") else commit, record.path
    )


def _unfinished(record: Record, status: Status, now: float) -> SeedRun:
    reason = one_line(status.reason or "")
    if status.state == "done":
        return SeedRun("failed", "status.json says done, but there is no result.json", path=record.path)
    if status.state == "running" and status.is_silent(now):
        silent = f"no heartbeat for more than {STALE_AFTER_S:g} s"
        return SeedRun("interrupted", reason or silent, path=record.path)
    return SeedRun(status.state, reason, path=record.path)


def one_line(text: str) -> str:
    """Text from a record without line breaks and control characters, which no table can show."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
