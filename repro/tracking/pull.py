"""`repro wandb pull`: the summaries of a project's finished runs as records here, so that one table can be made of
runs of several clusters.

Everything is checked before anything is written: a run whose config does not give the signature that it claims, two
runs for one record, and a record here that says something else are refused, all in one message. What a single run must
be is in `repro.tracking.pull_checks`.
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
from repro.errors import UserError
from repro.rows import Row
from repro.runs.files import write_json
from repro.runs.record import Record, record_for
from repro.runs.status import Status
from repro.tracking.client import CONFIG_TEXT, client_errors, require_login
from repro.tracking.mirror_file import Mirror, write_mirror
from repro.tracking.pull_checks import check_words, config_of_row, is_of_a_table, result_of_run, row_of

_API_TIMEOUT_S = 30


@dataclass(frozen=True)
class RemoteRun:
    """One run of a `project` (`[entity/]project`), as the server has it."""

    id: str
    url: str
    project: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A run that can become a record: what it is, what came out, and where."""

    remote: RemoteRun
    config: Config
    row: Row
    result: Mapping[str, Any]
    provenance: Mapping[str, Any]
    record: Record

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Table, row, scale and seed: what a line of a table is made of."""
        return self.row.table, self.row.id, self.config.scale.name, self.config.seed


@dataclass(frozen=True)
class Pulled:
    """What a pull did: records written, records that were here already, runs that are not finished or not ours."""

    written: tuple[Path, ...]
    here_already: tuple[Path, ...]
    passed_over: int


def remote_runs(project: str) -> list[RemoteRun]:
    """Every run of `[entity/]project`. Raises `UserError` where the server cannot be read."""
    require_login()
    with client_errors(f"{project}: cannot be read from W&B", "; is it [entity/]project?"):
        api = wandb.Api(timeout=_API_TIMEOUT_S)
        return [
            RemoteRun(run.id, run.url, f"{run.entity}/{run.project}", dict(run.config), dict(run.summary.items()))
            for run in api.runs(project, lazy=False)
        ]


def pull(runs: Iterable[RemoteRun], root: Path, rows: Sequence[str] = (), any_signature: bool = False) -> Pulled:
    """Write the records of finished runs below `root`.

    Args:
        rows: `table` or `table/row` prefixes to take; empty takes all that belong to a table.
        any_signature: take runs of one row, scale and seed whose configs differ, each into a record of its own.

    Raises `UserError`, once, with everything that is wrong; then nothing is written.
    """
    check_words(rows)
    problems: list[str] = []
    candidates: list[Candidate] = []
    passed_over = 0
    for remote in runs:
        about = _about(remote)
        if about is None or not _is_wanted(about, rows) or "result/schema" not in remote.summary:
            passed_over += 1
            continue
        try:
            candidates.append(_candidate(remote, about, root))
        except UserError as error:
            problems.append(f"{error} ({remote.url})")
    problems += _duplicates(candidates)
    if not any_signature:
        problems += _conflicts(candidates, root)
    new: list[Candidate] = []
    here: list[Candidate] = []
    for candidate in candidates:
        problem = _against_local(candidate)
        if problem:
            problems.append(problem)
        (here if candidate.record.result() is not None else new).append(candidate)
    if problems:
        unique = list(dict.fromkeys(problems))
        raise UserError(f"nothing pulled: {len(unique)} problem(s)\n" + "\n".join(f"  {text}" for text in unique))
    for candidate in new:
        _write(candidate)
    return Pulled(tuple(c.record.path for c in new), tuple(c.record.path for c in here), passed_over)


def _about(remote: RemoteRun) -> dict[str, Any] | None:
    """What the run's config.yaml held; None for a run that is none of this project's."""
    try:
        about = json.loads(remote.config.get(CONFIG_TEXT, "null"))
    except (TypeError, json.JSONDecodeError):
        return None
    return about if isinstance(about, dict) and {"table", "row", "signature"} <= about.keys() else None


def _is_wanted(about: Mapping[str, Any], rows: Sequence[str]) -> bool:
    name = f"{about['table']}/{about['row']}"
    if not rows:
        return is_of_a_table(about)
    return any(name == row or name.startswith(f"{row}/") for row in rows)


def _candidate(remote: RemoteRun, about: Mapping[str, Any], root: Path) -> Candidate:
    row = row_of(remote.id, about)
    config = config_of_row(remote.id, about, row)
    claims = [about["signature"], remote.config.get("signature"), remote.summary.get("result/signature")]
    wrong = [claim for claim in claims if claim != config.signature]
    if wrong:
        raise UserError(
            f"{remote.id}: conflicting signatures: it claims {str(wrong[0])[:8]}, its config gives "
            f"{config.signature[:8]}; one of them was edited or belongs to another version of the code"
        )
    result = result_of_run(remote.id, remote.summary, config, row)
    known = remote.config.get("provenance")
    provenance = {**(known if isinstance(known, dict) else {}), "pulled_from": remote.url}
    return Candidate(remote, config, row, result, provenance, record_for(root, config, row.table, row.id))


def _duplicates(candidates: Sequence[Candidate]) -> list[str]:
    """Two W&B runs for one record: which of them is the run, nobody can say."""
    by_path: dict[Path, list[Candidate]] = {}
    for candidate in candidates:
        by_path.setdefault(candidate.record.path, []).append(candidate)
    return [
        f"{same[0].row.id} seed {same[0].config.seed}: {len(same)} runs with the signature "
        f"{same[0].config.signature[:8]}: {', '.join(c.remote.url for c in same)}; delete all but one"
        for same in by_path.values()
        if len(same) > 1
    ]


def _conflicts(candidates: Sequence[Candidate], root: Path) -> list[str]:
    """One row, scale and seed with several signatures, in the project or here: only one can be in a table."""
    problems = []
    for candidate in candidates:
        table, row, scale, seed = candidate.place
        mine = candidate.config.signature[:8]
        others = {
            other.config.signature[:8]: other.remote.url
            for other in candidates
            if other.place == candidate.place and other.config.signature != candidate.config.signature
        }
        folder = root / table / row / scale
        for path in sorted(folder.glob(f"seed{seed}-*")):
            others.setdefault(path.name.rpartition("-")[2], str(path))
        others.pop(mine, None)
        if others:
            known = ", ".join(f"{name} ({where})" for name, where in sorted(others.items()))
            problems.append(
                f"{table}/{row} {scale} seed {seed}: conflicting signatures: {mine} ({candidate.remote.url}) and "
                f"{known}; their configs differ, so one table cannot hold both; --any-signature takes them all"
            )
    return problems


def _against_local(candidate: Candidate) -> str:
    """What the record here has against the run; empty where there is none, or it says the same."""
    record = candidate.record
    if not record.path.exists():
        return ""
    local = record.result()
    if local is None:
        state = record.status().state
        return f"{record.path}: is here and {state}, {candidate.remote.url} is finished; remove the folder to take it"
    different = [key for key in sorted({*local, *candidate.result}) if local.get(key) != candidate.result.get(key)]
    if not different:
        return ""
    shown = ", ".join(f"{key} {local.get(key)} here, {candidate.result.get(key)} there" for key in different[:3])
    return f"{record.path}: duplicate: this run was made twice, here and as {candidate.remote.url} ({shown}); keep one"


def _write(candidate: Candidate) -> None:
    """The record, renamed to its place when it is whole: a pull that is interrupted leaves none."""
    remote, result, final = candidate.remote, candidate.result, candidate.record.path
    record = Record(final.with_name(f".{final.name}.pull"))  # `all_records` passes it over
    try:
        shutil.rmtree(record.path, ignore_errors=True)  # of a pull that was killed
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
        raise UserError(f"{final}: cannot be written ({error.strerror}); pull again to go on") from None
    finally:
        shutil.rmtree(record.path, ignore_errors=True)
