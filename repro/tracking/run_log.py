"""Write the entries of a record to its W&B run, each step once, and check what the server has received."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import wandb

from repro.config import Config
from repro.runs.record import Record
from repro.tracking.current_cost import CurrentCost
from repro.tracking.metric_names import RESULT_SHA256, Names, digest, step_of
from repro.tracking.mirror_file import one_line
from repro.tracking.wandb_run import add_weights

_POLL_S = 0.5  # the server may take a moment to report what it has received


class RunLog:
    """Writes entries in step order to a new or resumed W&B run.

    Attributes:
        update: the last optimizer update that was written.
        sent: number of entries written by this object.
    """

    def __init__(self, run: Any, config: Config, names: Names) -> None:
        self._run, self._config, self._names = run, config, names
        self._cost = CurrentCost(config)
        self._last_step = run.starting_step - 1  # the server's last step if the run is resumed
        self._result: Mapping[str, Any] | None = None
        self._path = f"{run.entity}/{run.project}/{run.id}"  # the client forgets it when the run finishes
        self._record_step, self._record_entries = -1, 0  # those of the record, regardless of who sent them
        self.update = 0
        self.sent = 0

    def write(self, entry: Mapping[str, Any], when: float | None = None) -> None:
        """Log an entry with the model's current MACs and its time (Unix seconds), unless the run has that step."""
        if entry["kind"] in ("train", "masks"):
            entry = {**entry, "model_macs_g": self._cost.after(entry)}
        self.update = int(entry["update"])
        step = step_of(entry)
        if step > self._record_step:  # otherwise repeated after a resume from an older checkpoint
            self._record_step = step
            self._record_entries += 1
        if step <= self._last_step:
            return
        timestamp = {} if when is None else {"_timestamp": when}
        self._run.log({**self._names.logged(entry), **timestamp}, step=step)
        self._last_step = step
        self.sent += 1

    def finish(self, record: Record, result: Mapping[str, Any] | None, weights_timeout_s: float) -> None:
        """End the W&B run: as finished, with its result and weights, or without a result, as preempted or failed."""
        self._result = result
        try:
            if result is not None:
                self._run.summary.update(self._names.summary(result))
                self._run.summary.update(self._names.against_published(result))
                add_weights(self._run, record, self._config, weights_timeout_s)
            elif record.status().state == "requeued":
                self._run.mark_preempting()  # it resumes later, so W&B must not show it as failed
        finally:  # a failed upload must not prevent the rest
            self._run.finish(exit_code=0 if result is not None else 1)

    def missing(self, timeout_s: float) -> str:
        """Return what the server lacks: the last step, entries or the result; empty if it has everything.

        Call this after `finish`, since the client ends a run without an error even if the server rejected its entries.
        """
        until = time.monotonic() + timeout_s
        while True:
            missing = self._missing(max(1, round(until - time.monotonic())))
            if not missing or time.monotonic() + _POLL_S > until:
                return missing
            time.sleep(_POLL_S)

    def _missing(self, timeout_s: int) -> str:
        try:
            run = wandb.Api(timeout=timeout_s).run(self._path)
            last_step, entries, summary = run.lastHistoryStep, int(run.historyLineCount), dict(run.summary.items())
        except (Exception, SystemExit) as error:  # the client's errors have no common base class
            return f"the server does not answer what it has ({one_line(error)})"
        if last_step < self._last_step:
            return f"the server refused entries: its last step is {last_step}, the record's {self._last_step}"
        if entries < self._record_entries:  # if the disk fills up, the client's own file loses entries in the middle
            return (
                f"the server has {entries} of {self._record_entries} entries and accepts none before its last one: "
                "push the run to another project (--project)"
            )
        if self._result is not None and summary.get(RESULT_SHA256) != digest(self._result):
            return "the server refused the result"
        return ""
