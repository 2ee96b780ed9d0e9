"""`repro wandb pull`: convert finished W&B runs to records, so that a table can combine runs from several clusters.

Everything is checked before anything is written, and all problems are reported at once: a config that does not match
its signature, two runs for the same record, or a local record with a different result.
`repro.tracking.pull_checks` checks individual runs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from repro.config import Config
from repro.errors import UserError, count_of
from repro.files import write_json
from repro.runs.record import Record, record_for
from repro.runs.status import Status
from repro.tables.rows import SINGLE_RUNS, Row
from repro.tracking.client import client_errors
from repro.tracking.login import require_login
from repro.tracking.mirror_file import Mirror, write_mirror
from repro.tracking.pull_checks import check_tables, config_of_row, result_of_run, row_of
from repro.tracking.wandb_run import CONFIG_TEXT

_API_TIMEOUT_S = 30


@dataclass(frozen=True)
class RemoteRun:
    """A run of a `project` (`[entity/]project`), as stored on the server."""

    id: str
    url: str
    project: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A run that can become a record."""

    remote: RemoteRun
    config: Config
    row: Row
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]
    record: Record


@dataclass(frozen=True)
class Pulled:
    """The outcome: new records, records that already existed, and the number of unfinished or unselected runs."""

    written: tuple[Path, ...]
    existing: tuple[Path, ...]
    skipped: int


def remote_runs(project: str) -> list[RemoteRun]:
    """Return all runs of `[entity/]project`. Raises `UserError` if they cannot be read from the server."""
    require_login()
    with client_errors(f"{project}: cannot be read from W&B", "; is it [entity/]project?"):
        api = wandb.Api(timeout=_API_TIMEOUT_S)
        return [
            RemoteRun(run.id, run.url, f"{run.entity}/{run.project}", dict(run.config), dict(run.summary.items()))
            for run in api.runs(project, lazy=False)
        ]


def pull(runs: Iterable[RemoteRun], root: Path, rows: Sequence[str] = ()) -> Pulled:
    """Write the records of finished runs under `root`.

    Args:
        rows: `table` or `table/row` prefixes of runs to pull; if empty, all runs that belong to a table.

    Raises a single `UserError` with all problems, in which case nothing is written.
    """
    check_tables(rows)
    problems: list[str] = []
    candidates: list[Candidate] = []
    skipped = 0
    for remote in runs:
        about = _about(remote)
        if about is None or not _is_selected(about, rows) or "result/schema" not in remote.summary:
            skipped += 1
            continue
        try:
            candidates.append(_candidate(remote, about, root))
        except UserError as error:
            problems.append(f"{error} ({remote.url})")
    problems += _duplicates(candidates)
    problems += [problem for candidate in candidates if (problem := _local_conflict(candidate))]
    if problems:
        unique = list(dict.fromkeys(problems))
        raise UserError(f"nothing pulled: {len(unique)} problem(s)\n" + "\n".join(f"  {text}" for text in unique))
    existing = [candidate.record.path for candidate in candidates if candidate.record.result() is not None]
    written = [candidate.record.path for candidate in candidates if candidate.record.path not in existing]
    for candidate in candidates:
        if candidate.record.path in written:
            _write(candidate)
    return Pulled(tuple(written), tuple(existing), skipped)


def _about(remote: RemoteRun) -> dict[str, Any] | None:
    """Return the content of the run's config.yaml; None for a run of unrelated code."""
    try:
        about = json.loads(remote.config.get(CONFIG_TEXT, "null"))
    except (TypeError, json.JSONDecodeError):
        return None
    return about if isinstance(about, dict) and {"table", "row", "signature"} <= about.keys() else None


def _is_selected(about: Mapping[str, Any], rows: Sequence[str]) -> bool:
    name = f"{about['table']}/{about['row']}"
    if not rows:
        return bool(about["table"] != SINGLE_RUNS)
    return any(name == row or name.startswith(f"{row}/") for row in rows)


def _candidate(remote: RemoteRun, about: Mapping[str, Any], root: Path) -> Candidate:
    row = row_of(remote.id, about)
    config = config_of_row(remote.id, about, row)
    claims = [about["signature"], remote.config.get("signature"), remote.summary.get("result/signature")]
    if wrong := [claim for claim in claims if claim not in (config.signature, config.former_signature)]:
        raise UserError(
            f"{remote.id}: conflicting signatures: it claims {str(wrong[0])[:8]}, its config gives "
            f"{config.signature[:8]}; one of them was edited or belongs to another version of the code"
        )
    result = result_of_run(remote.id, remote.summary, config, row)
    known = remote.config.get("provenance")
    provenance = {**(known if isinstance(known, dict) else {}), "pulled_from": remote.url}
    return Candidate(remote, config, row, result, provenance, record_for(root, config, row.table, row.id))


def _duplicates(candidates: Sequence[Candidate]) -> list[str]:
    """Return a problem for each record that several W&B runs would be written to."""
    by_path: dict[Path, list[Candidate]] = {}
    for candidate in candidates:
        by_path.setdefault(candidate.record.path, []).append(candidate)
    return [
        f"{same[0].row.id} seed {same[0].config.seed}: {count_of(len(same), 'run')} with the signature "
        f"{same[0].config.signature[:8]}: {', '.join(c.remote.url for c in same)}; delete all but one"
        for same in by_path.values()
        if len(same) > 1
    ]


def _local_conflict(candidate: Candidate) -> str:
    """Return how the local record contradicts the run; empty if there is no record or it has the same result."""
    record, url = candidate.record, candidate.remote.url
    if not record.path.exists():
        return ""
    local = record.result()
    if local is None:
        state = record.status().state
        return f"{record.path}: exists and is {state}, {url} is finished; remove the folder to pull it"
    different = [key for key in sorted({*local, *candidate.result}) if local.get(key) != candidate.result.get(key)]
    if not different:
        return ""
    shown = ", ".join(f"{key} {local.get(key)} here, {candidate.result.get(key)} there" for key in different[:3])
    return f"{record.path}: duplicate: this run was trained twice, here and as {url} ({shown}); keep one"


def _write(candidate: Candidate) -> None:
    """Write the record to a hidden folder, which is renamed when complete."""
    remote, result, final = candidate.remote, candidate.result, candidate.record.path
    record = Record(final.with_name(f".{final.name}.pull"))  # `all_records` ignores hidden folders
    try:
        shutil.rmtree(record.path, ignore_errors=True)  # left over from a pull that was killed
        record.create(candidate.config, candidate.row.table, candidate.row.id)
        write_json(record.path / "provenance.json", dict(candidate.provenance))
        entity, _, project = remote.project.rpartition("/")
        mirror = Mirror("current", "none", remote.id, remote.url, entity=entity or None, project=project)
        write_mirror(record.path, mirror)
        write_json(record.path / "result.json", dict(result))
        done = Status("done", heartbeat=time.time(), update=result["updates"], updates=result["updates"])
        record.set_status(done)
        record.path.rename(final)
    except OSError as error:
        raise UserError(f"{final}: cannot be written ({error.strerror}); pull again to resume") from None
    finally:
        shutil.rmtree(record.path, ignore_errors=True)
