"""`repro wandb push`: the W&B runs of finished or stopped runs, rebuilt from their records. metrics.jsonl is the truth.

Pushing again sends only what the server does not have: a run goes on after the server's last step, and every entry has
the same step wherever it comes from. So a push that was cut off is simply started again.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.errors import UserError
from repro.paper_tables import table_names
from repro.runs.record import Record, all_records
from repro.tracking.client import Limits, client_errors, require_login, reset_client, start_run
from repro.tracking.mirror_file import Mirror, push_command, read_mirror, write_mirror
from repro.tracking.names import names_of, step_of
from repro.tracking.place import Place, place_of
from repro.tracking.run_log import RunLog

LIMITS = Limits(init_s=60, finish_s=600)  # not a run's own: whoever pushes has time, and half an upload is none
_CONFIRM_S = 30.0


@dataclass(frozen=True)
class Pushed:
    """What became of one record: `sent` entries, or why it was not pushed. `url` is the W&B run's."""

    record: Path
    sent: int = 0
    url: str | None = None
    skipped: str = ""
    failed: str = ""


def records_of(words: Sequence[str], root: Path) -> list[Record]:
    """The records that words name: a record's folder, any folder above records, or a table below `root`.

    Raises `UserError` for a word that leads to no record.
    """
    found: dict[Path, Record] = {}
    for word in words:
        folder = Path(word) if Path(word).is_dir() else root / word
        records = [Record(folder)] if (folder / "config.yaml").is_file() else list(all_records(folder))
        if not records:
            tables = ", ".join(table_names())
            raise UserError(f"{word}: no run record there and none below {folder}; give a folder or a table ({tables})")
        found |= {record.path.resolve(): record for record in records}
    return list(found.values())


def push(records: Sequence[Record], project: str | None = None) -> Iterator[Pushed]:
    """Push each record and yield what became of it; one that fails does not keep the others back.

    Raises `UserError` where the client has no key.
    """
    require_login()
    for record in records:
        yield push_one(record, project)


def push_one(record: Record, project: str | None) -> Pushed:
    """Push one record. A run that is at work, or still sends, is left to its own mirror."""
    try:
        with client_errors("W&B did not take it", f"; again: {push_command(record.path)}"):
            why_not = _left_alone(record)
            return Pushed(record.path, skipped=why_not) if why_not else _send(record, project)
    except UserError as error:
        reset_client()
        return Pushed(record.path, failed=str(error))


def _left_alone(record: Record) -> str:
    """Why this record is not to be pushed; empty where it is.

    A run is done before its mirror is: two who write one W&B run at once spoil it.
    """
    status, mirror = record.status(), read_mirror(record.path)
    if status.state == "running" and not status.is_silent(time.time()):
        return "is running; it mirrors itself"
    # Its process holds the lock to the end. Of another machine that may not be seen: its last sign of life counts.
    is_elsewhere = status.host not in (None, platform.node())
    is_live = mirror is not None and mirror.state == "live" and not status.is_silent(time.time())
    if record.is_locked or (is_elsewhere and is_live):
        return "is still at work; it mirrors itself"
    if status.attempt == 0 and record.result() is None:
        return "has not started yet"
    origin = record.provenance().get("pulled_from")
    return f"was pulled from {origin}, where it is" if origin else ""


def _send(record: Record, project: str | None) -> Pushed:
    about, config = record.about(), record.config()
    place = place_of(config.tracker.project, project, read_mirror(record.path))
    names = names_of(about["table"], about["row"], config)
    # The client's own files are of no use afterwards: the record has everything.
    with tempfile.TemporaryDirectory(prefix="repro-push-") as folder:
        run = start_run(record, config, "online", Path(folder), place, LIMITS, is_at_work=False)
        to, url = Place(run.project, run.entity), run.url
        log = RunLog(run, config, names)
        for entry in sorted(record.metrics(), key=step_of):
            log.write(entry)
        log.finish(record, record.result(), LIMITS.finish_s)
    missing, again = log.missing(_CONFIRM_S), push_command(record.path)
    mirror = Mirror("current", "online", run.id, url, log.update, entity=to.entity, project=to.project)
    if missing:
        write_mirror(record.path, replace(mirror, state="behind", reason=missing, push=again))
        raise UserError(f"W&B did not take it ({missing}); again: {again}")
    write_mirror(record.path, mirror)
    return Pushed(record.path, log.sent, url)
