"""The heartbeat of an attempt: keeps status.json up to date and notices when a newer attempt takes over."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from repro.interruption import StopFlag
from repro.runs.record import Record
from repro.runs.status import State, Status

MIN_INTERVAL_S = 1.0  # between two writes while training advances
MAX_INTERVAL_S = 15.0  # between two writes otherwise: while listing a million files, compiling or evaluating


class Heartbeat:
    """Writes the status of one attempt, on the first rank. It is also a metric sink, for the latest loss and accuracy.

    It runs in its own thread, because reading data or one update of a large model may take minutes. A heartbeat that
    stops therefore means only one thing: the process is dead.

    Once a newer attempt has claimed the run, it requests a stop and no longer writes the status.
    """

    def __init__(self, record: Record, status: Status, stop: StopFlag) -> None:
        self.record, self.status, self.stop = record, status, stop
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._written_at = 0.0
        self._is_failing = False
        self._furthest_update = status.update  # of all earlier attempts
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._try_to_write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def is_superseded(self) -> bool:
        """Whether a newer attempt has claimed this run."""
        return self.record.attempt_dir(self.status.attempt + 1).is_dir()

    def progress(self, update: int, updates: int) -> None:
        """Record the update that the run has reached. The file is written at most once a second."""
        status = self.status
        if not status.updates:
            status = status.moved("running", started=time.time(), update_at_start=update - 1)
        # Only new progress resets the count of submissions; repeating updates of an earlier attempt does not.
        submissions = 0 if update > self._furthest_update else status.submissions
        self.status = status.moved("running", update=update, updates=updates, submissions=submissions)
        if time.monotonic() - self._written_at > MIN_INTERVAL_S:
            self._try_to_write()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Copy the values that the status shows from a metric entry."""
        if entry["kind"] == "eval":
            self.status = self.status.moved("running", top1_pct=entry["top1_pct"])
        elif "loss" in entry:
            share = entry.get("loader_share_pct")
            self.status = self.status.moved("running", loss=entry["loss"], loader_share_pct=share)

    def hint(self, line: str) -> None:
        """Show advice in the status."""
        self.status = self.status.moved("running", hint=line)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Do nothing: no file is open."""

    def end(self, state: State, reason: str | None) -> None:
        """Write the outcome of the attempt. If that fails, the exit code and result.json still report it."""
        self._ended.set()
        self._thread.join()
        self.status = self.status.moved(state, reason=reason)
        self._try_to_write()

    def _beat(self) -> None:
        while not self._ended.wait(MIN_INTERVAL_S):
            if self.is_superseded or time.monotonic() - self._written_at > MAX_INTERVAL_S:
                self._try_to_write()

    def _try_to_write(self) -> None:
        """Write the status. A full disk or a slow file server must not end training; the next checkpoint would fail."""
        try:
            self._write()
        except OSError as error:
            if not self._is_failing:
                print(f"heartbeat: {error}; training continues, writing again later", file=sys.stderr, flush=True)
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self) -> None:
        with self._lock:
            self._written_at = time.monotonic()
            if self.is_superseded:  # the status belongs to the newer attempt
                self.stop.reason = f"attempt {self.record.latest_attempt()}, which has taken over"
            else:
                self.record.set_status(self.status.moved(self.status.state))
