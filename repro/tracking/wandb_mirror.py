"""Weights & Biases as a mirror of the record: one W&B run per run, across all its attempts.

It must never stop or slow down training. A thread talks to the client; the training loop only puts entries into a
queue. The first client error ends the mirroring of this attempt and is reported in mirror.json and on stderr. The
record stays complete, and `repro wandb push` catches up.
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
from repro.tracking.client import reset_client, stop_client
from repro.tracking.login import key_source, mirror_mode
from repro.tracking.metric_names import names_of, step_of
from repro.tracking.mirror_file import NOT_LOGGED_IN, Mirror, State, one_line, push_command, read_mirror, write_mirror
from repro.tracking.run_log import RunLog
from repro.tracking.wandb_project import WandbProject, choose_project
from repro.tracking.wandb_run import Timeouts, default_run_id, run_id, start_run

_BATCH_S = 5.0  # polling interval of the queue; waking up for every entry takes three times as much CPU time
_MAX_TITLE_LENGTH = 63
_GRACE_S = 5.0  # in addition to the client's own timeouts


@dataclass(frozen=True)
class _Entry:
    """An entry and the time at which it was written, not sent (Unix seconds)."""

    values: Mapping[str, Any]
    time: float


@dataclass(frozen=True)
class _End:
    """The last item of the queue: the result of a finished run, or None for a stopped run."""

    result: Mapping[str, Any] | None


class WandbMirror:
    """A sink that writes to the W&B server if the user is logged in, else to offline files in the record."""

    def __init__(self, record: Record, config: Config, timeouts: Timeouts | None = None) -> None:
        about = record.about()
        self._record, self._config = record, config
        self._timeouts = timeouts or Timeouts(config.tracker.init_timeout_s, config.tracker.finish_timeout_s)
        self._names = names_of(about["table"], about["row"], config)
        self._id = default_run_id(about)
        self._mode: Literal["online", "offline", "none"] = "none"
        self._url: str | None = None
        self._project: WandbProject | None = None
        self._offline_reason = ""
        self._log: RunLog | None = None
        self._has_failed = False
        self._queue: SimpleQueue[_Entry | _End] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb-mirror", daemon=True)
        self._thread.start()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Queue one entry; returns at once."""
        if not self._has_failed:
            self._queue.put(_Entry(dict(entry), time.time()))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Wait until everything has been sent, but no longer than the timeouts."""
        self._queue.put(_End(summary))
        self._closing.set()
        timeouts = self._timeouts
        finish_s = (1 + self._config.tracker.upload_weights) * timeouts.finish_s
        limit_s = 2 * timeouts.init_s + finish_s + timeouts.confirm_s + _GRACE_S
        if summary is None:
            limit_s = min(limit_s, timeouts.stopped_s)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._fail(f"not finished after {limit_s:g} s")
            stop_client()

    def _work(self) -> None:
        """Run the thread. Any client error is handled here: mirroring stops, training continues."""
        try:
            self._mirror()
        except (Exception, SystemExit) as error:  # the client exits if its service process has died
            if not self._has_failed:  # otherwise `close` has reported it
                self._fail(one_line(error))

    def _mirror(self) -> None:
        run = self._open()
        if self._mode == "online":
            self._note("live")
        else:
            self._note("behind", self._offline_reason)
        self._log = log = RunLog(run, self._config, self._names)
        # Entries of the record come first, because a killed attempt may have lines that never reached the client.
        for entry in sorted(self._record.metrics(), key=step_of):
            log.write(entry)
        while True:
            for item in self._next_items():
                if isinstance(item, _End):
                    if item.result is None:
                        self._alert(run)
                    log.finish(self._record, item.result, self._timeouts.finish_s)
                    self._confirm(log, is_stopped=item.result is None)
                    return
                log.write(item.values, item.time)

    def _alert(self, run: Any) -> None:
        """Send an alert if the run has failed, but not if it was only stopped and will resume."""
        status = self._record.status()
        if status.state == "failed":
            run.alert(title=f"{run.name} failed"[:_MAX_TITLE_LENGTH], text=status.reason or "", level="ERROR")

    def _next_items(self) -> list[_Entry | _End]:
        items = [self._queue.get()]
        self._closing.wait(_BATCH_S)
        while not self._queue.empty():
            items.append(self._queue.get())
        return items

    def _open(self) -> Any:
        (self._record.path / "wandb").mkdir(exist_ok=True)
        earlier = read_mirror(self._record.path)
        project = self._project = choose_project(self._config.tracker, mirror=earlier)
        self._id = run_id(self._record)
        self._url = earlier.url if earlier else None
        mode = mirror_mode(self._config)
        self._offline_reason = NOT_LOGGED_IN
        if mode == "offline":
            is_configured = self._config.tracker.mode == "offline"
            self._offline_reason = "tracker.mode=offline" if is_configured else "WANDB_MODE=offline"
        try:
            # `key_source` is called in both modes, because the client's message would quote an unreadable netrc file.
            if mode != "offline" and (key_source() or mode == "online"):
                run = self._start("online", project)
                self._url, self._project = run.url, WandbProject(run.project, run.entity)
                return run
        except (Exception, SystemExit) as error:  # the client's errors have no common base class
            if self._has_failed:  # `close` has stopped the client
                raise
            self._offline_reason = f"W&B cannot be reached ({one_line(error)})"
            self._warn(f"{self._offline_reason}; writing offline")
            reset_client()
        return self._start("offline", project)

    def _start(self, mode: Literal["online", "offline"], project: WandbProject) -> Any:
        run = start_run(self._record, self._config, mode, self._record.path, project, self._timeouts, is_training=True)
        self._mode = mode
        return run

    def _confirm(self, log: RunLog, is_stopped: bool) -> None:
        """Record whether the server has everything, since the client does not report what the server rejected."""
        if self._mode == "offline":
            self._note("behind", self._offline_reason)
            return
        missing = log.missing(self._timeouts.confirm_stopped_s if is_stopped else self._timeouts.confirm_s)
        if missing:
            self._fail(missing)
        else:
            self._note("current")

    def _fail(self, reason: str) -> None:
        self._has_failed = True
        self._warn(f"W&B mirror is behind ({reason}); the record is complete")
        try:
            self._note("behind", reason)
        except OSError as error:  # the record's disk may be full
            self._warn(f"mirror.json cannot be written ({one_line(error)})")

    def _warn(self, text: str) -> None:
        print(f"warning: {text}; send it later: {push_command(self._record.path)}", file=sys.stderr, flush=True)

    def _note(self, state: State, reason: str = "") -> None:
        mirror = Mirror(
            state,
            self._mode,
            self._id,
            self._url,
            self._log.update if self._log else 0,
            reason,
            push_command(self._record.path) if state == "behind" else "",
            self._project.entity if self._project else None,
            self._project.name if self._project else None,
        )
        write_mirror(self._record.path, mirror)
