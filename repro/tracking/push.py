"""`repro wandb push`: the W&B runs of finished or stopped runs, rebuilt from their records. metrics.jsonl is the truth.

Pushing again sends only what the server does not have: a run goes on after the server's last step, and every entry has
the same step wherever it comes from. So a push that was cut off is simply started again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.errors import UserError
from repro.rows import table_names
from repro.runs.record import Record, all_records
from repro.tracking.client import client_errors, require_login, reset_client, start_run
from repro.tracking.mirror_file import Mirror, push_command, write_mirror
from repro.tracking.names import names_of, step_of
from repro.tracking.wandb_mirror import finish, log_entry

WEIGHTS_TIMEOUT_S = 600  # beyond a run's own limits: whoever pushes has time, and half an upload is none


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
    """Push one record. A run that is at work is left to its own mirror."""
    try:
        with client_errors("W&B did not take it", f"; again: {push_command(record.path)}"):
            status = record.status()
            if status.state == "running" and not status.is_silent(time.time()):
                return Pushed(record.path, skipped="is running; it mirrors itself")
            if status.attempt == 0 and record.result() is None:
                return Pushed(record.path, skipped="has not started yet")
            return _send(record, project)
    except UserError as error:
        reset_client()
        return Pushed(record.path, failed=str(error))


def _send(record: Record, project: str | None) -> Pushed:
    about, config = record.about(), record.config()
    names = names_of(about["table"], about["row"], config)
    # The client's own files are of no use afterwards: the record has everything.
    with tempfile.TemporaryDirectory(prefix="repro-push-") as folder:
        run = start_run(record, config, "online", Path(folder), project)
        last = run.starting_step - 1
        update = sent = 0
        for entry in sorted(record.metrics(), key=step_of):
            update = int(entry["update"])
            if step_of(entry) > last:
                log_entry(run, config, names, entry)
                sent += 1
        finish(run, record, config, names, record.result(), WEIGHTS_TIMEOUT_S)
    write_mirror(record.path, Mirror("current", "online", run.id, run.url, update))
    return Pushed(record.path, sent, run.url)
