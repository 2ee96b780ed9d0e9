"""The entries of a record on their way into its W&B run: each step once, and at the end a look at what has arrived."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import wandb

from repro.config import Config
from repro.runs.record import Record
from repro.tracking.client import add_weights
from repro.tracking.current_cost import CurrentCost
from repro.tracking.mirror_file import one_line
from repro.tracking.names import RESULT_SHA256, Names, digest, step_of

_ASK_AGAIN_S = 0.5  # a server may take a moment until it shows what it has taken


class RunLog:
    """Writes entries, in the order of their steps, to a W&B run that is new, or has the first of them already.

    Attributes:
        update: the last optimizer update that the run has, or was handed.
        sent: how many entries were handed to it here.
    """

    def __init__(self, run: Any, config: Config, names: Names) -> None:
        self._run, self._config, self._names = run, config, names
        self._cost = CurrentCost(config)
        self._last = run.starting_step - 1  # a run that is resumed on the server goes on after its last step
        self._result: Mapping[str, Any] | None = None
        self._path = f"{run.entity}/{run.project}/{run.id}"  # the client does not tell it of a run that is finished
        self._furthest, self._lines = -1, 0  # of the record, whoever sent them
        self.update = 0
        self.sent = 0

    def write(self, entry: Mapping[str, Any], when: float | None = None) -> None:
        """Log one entry, with the MACs of the model then and `when` it came (s), unless that step is there."""
        if entry["kind"] in ("train", "masks"):
            entry = {**entry, "model_macs_g": self._cost.after(entry)}
        self.update = int(entry["update"])
        step = step_of(entry)
        if step > self._furthest:  # else repeated, by a resume from an older checkpoint
            self._furthest = step
            self._lines += 1
        if step <= self._last:
            return
        stamp = {} if when is None else {"_timestamp": when}
        self._run.log({**self._names.logged(entry), **stamp}, step=step)
        self._last = step
        self.sent += 1

    def finish(self, record: Record, result: Mapping[str, Any] | None, weights_timeout_s: float) -> None:
        """End the W&B run: with its result as the summary, and weights where asked for; or as an unfinished one."""
        self._result = result
        try:
            if result is not None:
                self._run.summary.update(self._names.summary(result))
                self._run.summary.update(self._names.against_published(result))
                add_weights(self._run, record, self._config, weights_timeout_s)
            elif record.status().state == "requeued":
                self._run.mark_preempting()  # it goes on later: W&B must not call it failed
        finally:  # weights that the server does not take keep nothing else back
            self._run.finish(exit_code=0 if result is not None else 1)

    def missing(self, limit_s: float) -> str:
        """What the server lacks of the last step and the result, after at most about `limit_s`; empty where it has all.

        To be asked after `finish`: the client ends a run as if all were well where the server refused what it sent.
        """
        until = time.monotonic() + limit_s
        while True:
            missing = self._missing(max(1, round(until - time.monotonic())))
            if not missing or time.monotonic() + _ASK_AGAIN_S > until:
                return missing
            time.sleep(_ASK_AGAIN_S)

    def _missing(self, timeout_s: int) -> str:
        try:
            there = wandb.Api(timeout=timeout_s).run(self._path)
            last, lines, summary = there.lastHistoryStep, int(there.historyLineCount), dict(there.summary.items())
        except (Exception, SystemExit) as error:  # the client's errors have no common parent
            return f"the server does not say what it has ({one_line(error)})"
        if last < self._last:
            return f"the server refused entries: its last step is {last}, the record's {self._last}"
        if lines < self._lines:  # a full disk under the client's own file takes some out of the middle
            return (
                f"the server has {lines} of {self._lines} entries and takes none any more before its last: push the "
                "whole run to another project (--project)"
            )
        if self._result is not None and summary.get(RESULT_SHA256) != digest(self._result):
            return "the server refused the result"
        return ""
