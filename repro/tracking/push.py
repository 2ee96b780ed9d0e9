"""`repro wandb push`: create or complete the W&B runs of finished or stopped runs from their records.

A push sends only what the server lacks: it resumes after the server's last step, and an entry has the same step
regardless of who sends it. An interrupted push can therefore simply be repeated.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.errors import UserError
from repro.runs.record import Record, all_records
from repro.tables.loader import table_names
from repro.tracking.client import client_errors, reset_client
from repro.tracking.login import require_login
from repro.tracking.metric_names import names_of, step_of
from repro.tracking.mirror_file import Mirror, push_command, read_mirror, write_mirror
from repro.tracking.run_log import RunLog
from repro.tracking.wandb_project import WandbProject, choose_project
from repro.tracking.wandb_run import Timeouts, start_run

TIMEOUTS = Timeouts(init_s=60, finish_s=600, confirm_s=30)  # nothing waits for a push, and a partial upload is useless


@dataclass(frozen=True)
class Pushed:
    """The outcome for one record: number of entries sent and URL of the W&B run, or why it was skipped or failed."""

    record: Path
    sent: int = 0
    url: str | None = None
    skipped: str = ""
    failed: str = ""


def records_of(words: Sequence[str], root: Path) -> list[Record]:
    """Return the records in the folders or tables named by `words`.

    A word is the folder of a record, a folder that contains records, or a table under `root`. Raises `UserError` for a
    word without records.
    """
    records: dict[Path, Record] = {}
    for word in words:
        folder = Path(word) if Path(word).is_dir() else root / word
        found = [Record(folder)] if (folder / "config.yaml").is_file() else list(all_records(folder))
        if not found:
            tables = ", ".join(table_names())
            raise UserError(f"{word}: no run record there and none below {folder}; give a folder or a table ({tables})")
        records |= {record.path.resolve(): record for record in found}
    return list(records.values())


def push(records: Sequence[Record], project: str | None = None, timeouts: Timeouts = TIMEOUTS) -> Iterator[Pushed]:
    """Push each record and yield its outcome; a failure does not stop the others.

    Raises `UserError` without a key.
    """
    require_login()
    for record in records:
        yield _push(record, project, timeouts)


def _push(record: Record, project: str | None, timeouts: Timeouts) -> Pushed:
    try:
        with client_errors("W&B did not accept it", f"; try again: {push_command(record.path)}"):
            reason = _reason_to_skip(record)
            return Pushed(record.path, skipped=reason) if reason else _send(record, project, timeouts)
    except UserError as error:
        reset_client()
        return Pushed(record.path, failed=str(error))


def _reason_to_skip(record: Record) -> str:
    """Return why a record is not pushed; empty if it is. Two writers to one W&B run would overwrite each other."""
    status, mirror = record.status(), read_mirror(record.path)
    if status.state == "running" and not status.is_silent(time.time()):
        return "is running and mirrors itself"
    # A run is done before its mirror is. Its process holds the lock until it exits; on other machines the lock may not
    # be visible, so the heartbeat decides.
    is_elsewhere = status.host not in (None, platform.node())
    is_live = mirror is not None and mirror.state == "live" and not status.is_silent(time.time())
    if record.is_locked or (is_elsewhere and is_live):
        return "its process has not exited and mirrors itself"
    if status.attempt == 0 and record.result() is None:
        return "has not started yet"
    origin = record.provenance().get("pulled_from")
    return f"was pulled from {origin}" if origin else ""


def _send(record: Record, option: str | None, timeouts: Timeouts) -> Pushed:
    about, config = record.about(), record.config()
    project = choose_project(config.tracker, option, read_mirror(record.path))
    names = names_of(about["table"], about["row"], config)
    # The client's own files are temporary, because the record is complete.
    with tempfile.TemporaryDirectory(prefix="repro-push-") as folder:
        run = start_run(record, config, "online", Path(folder), project, timeouts, is_training=False)
        pushed_to, url = WandbProject(run.project, run.entity), run.url
        log = RunLog(run, config, names)
        for entry in sorted(record.metrics(), key=step_of):
            log.write(entry)
        log.finish(record, record.result(), timeouts.finish_s)
    missing, again = log.missing(timeouts.confirm_s), push_command(record.path)
    mirror = Mirror("current", "online", run.id, url, log.update, entity=pushed_to.entity, project=pushed_to.name)
    if missing:
        write_mirror(record.path, replace(mirror, state="behind", reason=missing, push=again))
        raise UserError(f"W&B did not accept it ({missing}); try again: {again}")
    write_mirror(record.path, mirror)
    return Pushed(record.path, log.sent, url)
