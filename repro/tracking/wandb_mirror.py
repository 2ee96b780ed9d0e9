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
    add_weights,
    is_logged_in,
    reset_client,
    run_id,
    start_run,
    stop_client,
)
from repro.tracking.current_cost import current_macs_g
from repro.tracking.mirror_file import Mirror, State, one_line, push_command, write_mirror
from repro.tracking.names import Names, names_of, step_of
from repro.tracking.segment import becomes_whole, offline_runs

_BATCH_S = 5.0  # between two looks at what the loop has handed over
_FLUSH_S = 3.0  # for the client's offline file, after the end of a run
_STOPPED_S = 5.0  # a run that was asked to stop has little time left, and its next attempt makes up for it
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
        self._why_offline = ""
        self._update = 0
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
        limit_s = 2 * INIT_TIMEOUT_S + (1 + tracker.upload_weights) * tracker.finish_timeout_s + _GRACE_S
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
        last = run.starting_step - 1  # a run that is resumed on the server goes on after its last step
        # The record first: a killed attempt may have kept lines that never reached the client.
        for entry in sorted(self._record.metrics(), key=step_of):
            last = self._log(run, entry, last)
        while True:
            for item in self._next_items():
                if isinstance(item, _End):
                    limit_s = self._config.tracker.finish_timeout_s
                    finish(run, self._record, self._config, self._names, item.result, limit_s)
                    self._say_how_it_ended()
                    return
                last = self._log(run, item.values, last, item.time)

    def _next_items(self) -> list[_Entry | _End]:
        """What has come in the batch's time. To wake for each entry takes three times as much of the processor."""
        items = [self._queue.get()]
        self._closing.wait(_BATCH_S)
        while not self._queue.empty():
            items.append(self._queue.get())
        return items

    def _open(self) -> Any:
        (self._record.path / "wandb").mkdir(exist_ok=True)
        wanted = self._config.tracker.mode
        self._why_offline = "not logged in to W&B" if wanted == "auto" else "tracker.mode=offline"
        try:
            if wanted == "online" or (wanted == "auto" and is_logged_in()):
                run = start_run(self._record, self._config, "online", self._record.path)
                self._mode, self._url = "online", run.url
                return run
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever it is (the client's errors have no common parent), offline may still do
            self._why_offline = f"W&B cannot be reached ({one_line(error)})"
            self._warn(f"{self._why_offline}; writing offline")
            reset_client()
        run = start_run(self._record, self._config, "offline", self._record.path)
        self._mode = "offline"
        return run

    def _log(self, run: Any, entry: Mapping[str, Any], last: int, when: float | None = None) -> int:
        """Log one entry unless that step is there already; returns the last step that is."""
        step = step_of(entry)
        if step <= last:
            return last
        log_entry(run, self._config, self._names, entry, when)
        self._update = int(entry["update"])
        return step

    def _say_how_it_ended(self) -> None:
        if self._mode == "online":
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
        mirror = Mirror(state, self._mode, self._id, self._url, self._update, reason, push)
        write_mirror(self._record.path, mirror)


def log_entry(run: Any, config: Config, names: Names, entry: Mapping[str, Any], when: float | None = None) -> None:
    """Log one entry of metrics.jsonl, with the MACs of the model as it then was, and `when` it came if it is known."""
    if entry["kind"] in ("train", "masks"):
        entry = {**entry, "model_macs_g": current_macs_g(config, entry)}
    stamp = {} if when is None else {"_timestamp": when}
    run.log({**names.logged(entry), **stamp}, step=step_of(entry))


def finish(
    run: Any, record: Record, config: Config, names: Names, result: Mapping[str, Any] | None, weights_timeout_s: float
) -> None:
    """End the W&B run: with its result as the summary, and its weights where asked; or as one that is not finished."""
    try:
        if result is not None:
            run.summary.update(names.summary(result))
            run.summary.update(names.against_published(result))
            add_weights(run, record, config, weights_timeout_s)
    finally:  # weights that the server does not take keep nothing else back
        run.finish(exit_code=0 if result is not None else 1)
