"""The pulse of an attempt: status.json kept fresh, whatever the training is busy with, and a look at who came after."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from repro.runs.record import Record
from repro.runs.status import State, Status
from repro.training.interruption import StopFlag

AT_MOST_EVERY_S = 1.0  # while there is progress to tell
AT_LEAST_EVERY_S = 15.0  # while there is none: reading a million file names, compiling, evaluating


class Heartbeat:
    """Writes the status of one attempt. Also a sink of metrics, for the latest loss and accuracy.

    A thread of its own, because an update of a large model may take minutes and reading data as well: silence then
    means that the process is dead, and nothing else. Only the first rank has one.

    Once a newer attempt has claimed the run, this one asks its training to stop and writes no status any more.
    """

    def __init__(self, record: Record, status: Status, stop: StopFlag) -> None:
        self.record, self.status, self.stop = record, status, stop
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._written = 0.0
        self._is_failing = False
        self._furthest = status.update  # of the attempts before
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
        """Note how far the run is; written at most once a second."""
        status = self.status
        if not status.updates:
            status = status.moved("running", started=time.time(), update_at_start=update - 1)
        # Getting further than any attempt before ends a row of submissions in vain; doing the same again does not.
        submissions = 0 if update > self._furthest else status.submissions
        self.status = status.moved("running", update=update, updates=updates, submissions=submissions)
        if time.monotonic() - self._written > AT_MOST_EVERY_S:
            self._try_to_write()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Take the numbers that a status shows."""
        if entry["kind"] == "eval":
            self.status = self.status.moved("running", top1_pct=entry["top1_pct"])
        elif "loss" in entry:
            share = entry.get("loader_share_pct")
            self.status = self.status.moved("running", loss=entry["loss"], loader_share_pct=share)

    def hint(self, line: str) -> None:
        """Take what a person should set."""
        self.status = self.status.moved("running", hint=line)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Nothing is held open."""

    def end(self, state: State, reason: str | None) -> None:
        """Write how the attempt ended. Where that cannot be written, the exit code and result.json tell it."""
        self._ended.set()
        self._thread.join()
        self.status = self.status.moved(state, reason=reason)
        self._try_to_write()

    def _beat(self) -> None:
        while not self._ended.wait(AT_MOST_EVERY_S):
            if self.is_superseded or time.monotonic() - self._written > AT_LEAST_EVERY_S:
                self._try_to_write()

    def _try_to_write(self) -> None:
        """A full disk or a file server that hiccups ends no training; one that stays so fails its checkpoint."""
        try:
            self._write()
        except OSError as error:
            if not self._is_failing:
                print(f"heartbeat: {error}; trained on, tried again", file=sys.stderr, flush=True)
            self._is_failing = True
        else:
            self._is_failing = False

    def _write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            if self.is_superseded:  # the status is the newer attempt's now
                self.stop.reason = f"attempt {self.record.latest_attempt()}, which has taken over"
            else:
                state = self.status.state
                self.record.set_status(self.status.moved(state))
