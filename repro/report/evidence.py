"""The records of one row: state, result and provenance of each seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repro.config import Config
from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER
from repro.config.published_training import PUBLISHED_SCALE, is_unchanged
from repro.config.signature import signatures
from repro.errors import UserError
from repro.report.verdicts import partial
from repro.runs.adopted import AdoptedWeights, read_adopted
from repro.runs.record import Record, record_for
from repro.runs.schemas import RESULT_SCHEMA
from repro.runs.status import STALE_AFTER_S, Status
from repro.runs.timing import Timing, read_timing, timings_by_batch
from repro.tables.rows import Row

# A row without finished seeds gets the first of these states that any of its seeds is in.
_STATE_PRIORITY = ("running", "requeued", "submitted", "failed", "interrupted", "cancelled", "planned", "missing")


@dataclass(frozen=True)
class SeedRun:
    """One run, read from its record.

    `state` is that in status.json, `missing` if `record` does not exist, or `interrupted` if the heartbeat has stopped.
    """

    record: Record
    signature: str
    state: str = "missing"
    reason: str = ""
    result: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """Abbreviated commit hash, with `+` for uncommitted changes; empty if the provenance has none."""
        commit = str(self.provenance.get("commit") or "")[:8]
        return f"{commit}+" if commit and self.provenance.get("dirty_diff_sha256") else commit


@dataclass(frozen=True)
class Evidence:
    """The evidence that the records contain about a row at one scale.

    Attributes:
        runs: runs by seed.
        timing: timing of the row's model, if it has been measured.
        timings_by_batch: timings at batch sizes other than that of the table's column.
        is_unchanged: False if overrides change anything that can affect a result.
        adopted: third-party weights of this scale or of the published size.
    """

    row: Row
    config: Config
    runs: Mapping[int, SeedRun]
    timing: Timing | None = None
    timings_by_batch: Sequence[Timing] = ()
    is_unchanged: bool = True
    adopted: Sequence[AdoptedWeights] = ()

    @property
    def finished(self) -> dict[int, Record]:
        """The records of the finished seeds."""
        return {seed: run.record for seed, run in self.runs.items() if run.state == "done"}

    @property
    def n_done(self) -> int:
        """Number of finished seeds."""
        return len(self.finished)

    @property
    def n_records(self) -> int:
        """Number of records on disk, finished or not."""
        return sum(run.state != "missing" for run in self.runs.values())

    @property
    def commits(self) -> list[str]:
        """The commits of the finished seeds."""
        return sorted({run.commit for run in self.runs.values() if run.state == "done" and run.commit})

    @property
    def state(self) -> str:
        """The state of the row over all its seeds."""
        return row_state(run.state for run in self.runs.values())

    @property
    def reason(self) -> str:
        """Why seeds are not finished: failures, stopped heartbeats, or a method without training code."""
        if not self.config.method.is_trainable and not self.n_done:
            return "no training for this method yet"
        reasons: dict[str, list[int]] = {}
        for seed, run in self.runs.items():
            if run.reason or (run.state != "done" and self.n_done):
                reason = f"{run.state}: {run.reason}" if run.reason else run.state
                reasons.setdefault(reason, []).append(seed)
        if len(self.runs) == 1:
            return next((run.reason for run in self.runs.values()), "")
        return "; ".join(f"seed {', '.join(map(str, seeds))} {reason}" for reason, seeds in reasons.items())

    def values(self, key: str) -> dict[int, float]:
        """Return the number `key` in result.json by seed, for the finished seeds that have it."""
        found = {seed: run.result.get(key) for seed, run in self.runs.items() if run.result is not None}
        return {seed: float(value) for seed, value in found.items() if value is not None}


def row_state(states: Iterable[str]) -> str:
    """Return the state over all seeds: done, partial (n of k), or the most active state if none is done."""
    states = list(states)
    done = states.count("done")
    if done:
        return "done" if done == len(states) else partial(done, len(states))
    return min(states, key=_STATE_PRIORITY.index)


def read_evidence(
    table: str, row: Row, scale: str, seeds: Sequence[int], root: Path, overrides: Sequence[str], now: float
) -> Evidence:
    """Read the records of a row. Heartbeats are compared with `now`, a Unix time in seconds."""
    first = compose([NO_FOLDER, *row.overrides_at(scale), f"seed={seeds[0]}", *overrides])
    known = signatures(first, seeds)
    runs = {}
    for seed in seeds:
        config = first.model_copy(update={"seed": seed})
        place = {"table": table, "row": row.run_id, "scale": config.scale.name, "seed": seed, "signature": known[seed]}
        record = record_for(root, config, table, row.run_id, known[seed])
        runs[seed] = _read_run(record, place, config.former_signature, now)
    timing, by_batch = read_timing(root, table, row.id), timings_by_batch(root, table, row.id)
    adopted = [one for one in read_adopted(root, table, row.id) if one.scale in (scale, PUBLISHED_SCALE)]
    return Evidence(row, first, runs, timing, by_batch, not overrides or is_unchanged(row, first), adopted)


def _read_run(record: Record, place: Mapping[str, Any], former_signature: str | None, now: float) -> SeedRun:
    """Read one run. `place` holds the values that its result must contain: table, row, scale, seed and signature.

    The signature may also be the config's `former_signature`.
    """
    run = SeedRun(record, place["signature"])
    if not record.path.is_dir():
        return run
    status = record.status()
    # The result is written last: if it exists, the run is done, even if it was killed before updating its status.
    result = record.result()
    if result is None:
        state, reason = _unfinished(status, now)
        return replace(run, state=state, reason=reason)
    if result.get("schema") != RESULT_SCHEMA:
        raise UserError(
            f"{record.path}/result.json: schema {result.get('schema')!r}, this report reads {RESULT_SCHEMA}; "
            "report with the code that wrote it, or remove the folder to run it again"
        )
    for key, value in place.items():
        if result[key] != value and not (key == "signature" and result[key] == former_signature):
            raise UserError(
                f"{record.path}/result.json: of another run: its {key} is {result[key]}, the record's {value}; "
                "remove the folder to run it again"
            )
    return replace(run, state="done", result=result, provenance=record.provenance())


def _unfinished(status: Status, now: float) -> tuple[str, str]:
    """Return the state of a run without a result, and the reason for it."""
    reason = one_line(status.reason or "")
    if status.state == "done":
        return "failed", "status.json says done, but there is no result.json"
    if status.state == "running" and status.is_silent(now):
        return "interrupted", reason or f"no heartbeat for more than {STALE_AFTER_S:g} s"
    return status.state, reason


def one_line(text: str) -> str:
    """Return text from a record without line breaks and control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
