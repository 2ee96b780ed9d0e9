"""Weights & Biases as a mirror of the record: one W&B run per run, across all its attempts.

Nothing here may stop or slow a training: a thread of its own talks to the client, the loop only hands it entries. The
first error of the client ends the mirroring of this attempt, mirror.json and stderr say so, and the record stays
complete; `repro wandb push` makes up for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal

from repro.config import Config
from repro.runs.record import Record
from repro.tracking.client import (
    INIT_TIMEOUT_S,
    is_logged_in,
    limits_at_work,
    reset_client,
    run_id,
    start_run,
    stop_client,
    wanted_mode,
)
from repro.tracking.mirror_file import Mirror, State, one_line, push_command, read_mirror, write_mirror
from repro.tracking.names import names_of, step_of
from repro.tracking.place import Place, place_of
from repro.tracking.run_log import RunLog
from repro.tracking.segment import becomes_whole, offline_runs

_BATCH_S = 5.0  # between two looks at what the loop has handed over
_FLUSH_S = 3.0  # for the client's offline file, after the end of a run
_STOPPED_S = 5.0  # a run that was asked to stop has little time left, and its next attempt makes up for it
_CONFIRM_S = 10.0  # for a server that takes its time to show what it has taken
_CONFIRM_STOPPED_S = 2.0
_GRACE_S = 5.0  # beyond the client's own time limits


@dataclass(frozen=True)
class _Entry:
    """An entry and when it came (s since 1970): W&B's charts over time must not see when it was sent."""

    values: Mapping[str, Any]
    time: float


@dataclass(frozen=True)
class _End:
    """The last thing in the queue: the result of a finished run, or None for one that stops here for now."""

    result: Mapping[str, Any] | None


class WandbMirror:
    """Writes entries to W&B: offline files beside the record, or the server when the user is logged in."""

    def __init__(self, record: Record, config: Config) -> None:
        about = record.about()
        self._record, self._config = record, config
        self._names = names_of(about["table"], about["row"], config)
        self._id = run_id(about["signature"], about["table"], about["row"])
        self._mode: Literal["online", "offline", "none"] = "none"
        self._url: str | None = None
        self._place: Place | None = None
        self._why_offline = ""
        self._log: RunLog | None = None
        self._gave_up = False
        self._queue: SimpleQueue[_Entry | _End] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-mirror", daemon=True)
        self._thread.start()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Hand one entry over; returns at once."""
        if not self._gave_up:
            self._queue.put(_Entry(dict(entry), time.time()))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Wait until all is written or sent, no longer than the time limits of the client and of the config."""
        self._queue.put(_End(summary))
        self._closing.set()
        tracker = self._config.tracker
        limit_s = 2 * INIT_TIMEOUT_S + (1 + tracker.upload_weights) * tracker.finish_timeout_s + _CONFIRM_S + _GRACE_S
        if summary is None:
            limit_s = min(limit_s, _STOPPED_S)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._give_up(f"not through after {limit_s:g} s")
            stop_client()

    def _work(self) -> None:
        """The thread, and the one place where an error of the client ends: mirroring stops, training does not."""
        try:
            self._mirror()
        except (Exception, SystemExit) as error:  # the client exits with its service's code where that has died
            if not self._gave_up:  # else `close` has said why
                self._give_up(one_line(error))

    def _mirror(self) -> None:
        run = self._open()
        if self._mode == "online":
            self._note("live")
        else:
            self._note("behind", self._why_offline)
        self._log = log = RunLog(run, self._config, self._names)
        # The record first: a killed attempt may have kept lines that never reached the client.
        for entry in sorted(self._record.metrics(), key=step_of):
            log.write(entry)
        while True:
            for item in self._next_items():
                if isinstance(item, _End):
                    log.finish(self._record, item.result, self._config.tracker.finish_timeout_s)
                    self._say_how_it_ended(log, is_stopped=item.result is None)
                    return
                log.write(item.values, item.time)

    def _next_items(self) -> list[_Entry | _End]:
        """What has come in the batch's time. To wake for each entry takes three times as much of the processor."""
        items = [self._queue.get()]
        self._closing.wait(_BATCH_S)
        while not self._queue.empty():
            items.append(self._queue.get())
        return items

    def _open(self) -> Any:
        (self._record.path / "wandb").mkdir(exist_ok=True)
        before = read_mirror(self._record.path)
        place = self._place = place_of(self._config.tracker.project, mirror=before)
        self._url = before.url if before else None
        wanted = wanted_mode(self._config)
        self._why_offline = "not logged in to W&B"
        if wanted == "offline":
            self._why_offline = "tracker.mode=offline" if self._config.tracker.mode == wanted else "WANDB_MODE=offline"
        try:
            # Asked in both cases: of a netrc that it cannot read the client tells more than anybody should see.
            if wanted != "offline" and (is_logged_in() or wanted == "online"):
                run = self._start("online", place)
                self._url, self._place = run.url, Place(run.project, run.entity)
                return run
        except (Exception, SystemExit) as error:
            # Whatever it is (the client's errors have no common parent), offline may still do.
            self._why_offline = f"W&B cannot be reached ({one_line(error)})"
            self._warn(f"{self._why_offline}; writing offline")
            reset_client()
        return self._start("offline", place)

    def _start(self, mode: Literal["online", "offline"], place: Place) -> Any:
        limits = limits_at_work(self._config)
        run = start_run(self._record, self._config, mode, self._record.path, place, limits, is_at_work=True)
        self._mode = mode
        return run

    def _say_how_it_ended(self, log: RunLog, is_stopped: bool) -> None:
        if self._mode == "online":
            missing = log.missing(_CONFIRM_STOPPED_S if is_stopped else _CONFIRM_S)
            if missing:
                self._give_up(missing)
            else:
                self._note("current")
            return
        segments = offline_runs(self._record.path)
        if not segments or not becomes_whole(segments[-1], _FLUSH_S):
            self._give_up("the offline files are incomplete: is the disk full?")
            return
        self._note("behind", self._why_offline)

    def _give_up(self, reason: str) -> None:
        self._gave_up = True
        self._warn(f"W&B mirror is behind ({reason}); the record is complete")
        try:
            self._note("behind", reason)
        except OSError as error:  # the disk that is full may be the record's too
            self._warn(f"mirror.json cannot be written ({one_line(error)})")

    def _warn(self, text: str) -> None:
        print(f"warning: {text}; send it later: {push_command(self._record.path)}", file=sys.stderr, flush=True)

    def _note(self, state: State, reason: str = "") -> None:
        push = push_command(self._record.path) if state == "behind" else ""
        update = self._log.update if self._log else 0
        entity, project = (self._place.entity, self._place.project) if self._place else (None, None)
        mirror = Mirror(state, self._mode, self._id, self._url, update, reason, push, entity, project)
        write_mirror(self._record.path, mirror)
