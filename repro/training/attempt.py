"""One attempt at a run, which a job executes. Its only input is the folder of a record, and all output goes there."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from repro.config import Config
from repro.config.schedule import paper_updates
from repro.data.splits import Splits, skipped_line
from repro.data.unreadable_files import count_unreadable
from repro.distributed import PeerFailed, World, join_world, leave_world
from repro.errors import UserError, count_of, is_disk_full, is_out_of_memory, os_error_line
from repro.files import write_json, write_text
from repro.interruption import Interrupted, StopFlag
from repro.runs import provenance
from repro.runs.record import Record
from repro.runs.status import EXIT_STOPPED, State, Status
from repro.tracking.sinks import Sink, Sinks, open_sinks
from repro.training.heartbeat import Heartbeat
from repro.training.inputs import Inputs, load_inputs
from repro.training.loader_hint import LoaderHint, loader_hint
from repro.training.loop import RunContext, RunFailed, Trainer
from repro.training.out_of_memory import out_of_memory_advice
from repro.training.result import mask_cells, run_result
from repro.training.weights_file import write_weights

EXIT_DONE, EXIT_FAILED = 0, 1
TAKEOVER_TIMEOUT_S = 300.0  # time for an older attempt to notice that it is superseded, save and exit


def execute(
    path: Path,
    attempt: int | None = None,
    job_id: str | None = None,
    log: Callable[[str], None] = print,
    takeover_timeout_s: float = TAKEOVER_TIMEOUT_S,
) -> int:
    """Train the run at `path` until it is done, fails or has to stop, and return the exit code of the process.

    A finished run is left unchanged. The outcome is in status.json: done, requeued (stopped, to be resumed) or failed.
    The record is locked until this function returns.

    Args:
        attempt: the attempt number that this process has claimed; None claims the next one.
        takeover_timeout_s: how long to wait for an older attempt that is still alive. That attempt exits once it
            notices this one, so a job that was requeued after a node failure does not depend on the failed node.
    """
    record = Record(path)
    config = record.config()
    with StopFlag() as stop:
        try:
            with stop.at_once():
                world = join_world(config.run.device, config.launcher.wants_gpus)
        except Interrupted:
            return EXIT_STOPPED
        except UserError as error:  # one of the ranks does not have its device
            if int(os.environ.get("RANK", "0")) == 0:
                record.set_status(record.status().moved("failed", reason=str(error)))
            log(f"{path}: {error}")
            return EXIT_FAILED
        lock = record.lock
        try:
            if _is_done(record, world):
                if world.is_first and record.status().state != "done":  # killed between writing result and status
                    record.set_status(record.status().moved("done", reason=None))
                return EXIT_DONE
            number = world.on_every_rank(
                "taking the run", lambda: _claim(record, lock, attempt, world, stop, takeover_timeout_s)
            )
            if _is_done(record, world):  # the older attempt has finished it in the meantime
                return EXIT_DONE
            return _Attempt(record, config, world, stop, number, job_id, log).run()
        except Interrupted as interruption:
            log(f"{path}: stopped by {interruption}")
            return EXIT_STOPPED
        except PeerFailed as error:
            log(f"{path}: {error}")
            return EXIT_FAILED
        finally:
            lock.release()
            leave_world()


def _is_done(record: Record, world: World) -> bool:
    return world.any_rank(record.result() is not None)[0]


def _claim(record: Record, lock: FileLock, attempt: int | None, world: World, stop: StopFlag, timeout_s: float) -> int:
    """Claim the run and wait for its lock, on the first rank only. Return the attempt number, or 0 on other ranks.

    Raises `Interrupted` if an older attempt does not exit, or if the run was cancelled before it started.
    """
    if not world.is_first:
        return 0
    number = record.claim_attempt() if attempt is None else attempt
    with stop.at_once():
        try:
            lock.acquire(timeout=timeout_s, poll_interval=0.2)
        except Timeout:
            raise Interrupted(
                f"an older attempt, which still holds the lock of this run after {timeout_s:g} s"
            ) from None
    if record.status().is_cancelled_unstarted:
        raise Interrupted("repro cancel, before it started")
    for folder in (record.path, record.checkpoint_dir):  # files that a killed attempt was writing
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    return number


@dataclass
class _Attempt:
    """An attempt that holds the lock of its run."""

    record: Record
    config: Config
    world: World
    stop: StopFlag
    number: int
    job_id: str | None
    log: Callable[[str], None]
    sinks: Sinks | None = None
    trainer: Trainer | None = None
    result: dict[str, Any] | None = None

    def run(self) -> int:
        """Train, write the outcome to status.json, and return the exit code."""
        if self.config.scale.cpu_threads:
            torch.set_num_threads(self.config.scale.cpu_threads)
        is_first = self.world.is_first
        with Heartbeat(self.record, self._status(), self.stop) if is_first else nullcontext() as heartbeat:
            try:
                code, state, reason = self._outcome(heartbeat)
                if heartbeat is not None:
                    heartbeat.end(state, reason)
                return code
            finally:  # after the status, because a slow mirror must not delay it
                if self.sinks is not None:
                    self.sinks.close(self.result)

    def _status(self) -> Status:
        return self.record.status().moved(
            "running",
            attempt=self.number,
            job_id=self.job_id,
            host=platform.node(),
            pid=os.getpid(),
            user=os.getuid(),
            reason=None,
            started=time.time(),
            updates=0,
            loader_share_pct=None,
            hint=None,
        )

    def _outcome(self, heartbeat: Heartbeat | None) -> tuple[int, State, str | None]:
        """Train and return the exit code, the state and its reason."""
        try:
            self._train(heartbeat)
        except Interrupted as interruption:
            # Not the update in the status: an attempt that was killed got further than its last checkpoint.
            update = self._update
            self.log(f"rank {self.world.rank}: stopped by {interruption} after update {update}")
            return EXIT_STOPPED, "requeued", f"stopped by {interruption}; resumes from update {update}"
        except (RunFailed, UserError, PeerFailed) as error:
            self.log(f"failed: {error}")
            return EXIT_FAILED, "failed", str(error)
        except Exception as error:
            if is_out_of_memory(error):
                reason = out_of_memory_advice(error, self.config, self.world.device, self._update)
            elif isinstance(error, OSError) and is_disk_full(error):
                reason = os_error_line(error, resumes=True)
            else:
                traceback.print_exc()
                return EXIT_FAILED, "failed", f"{type(error).__name__}: {error}"
            self.log(f"failed: {reason}")
            return EXIT_FAILED, "failed", reason
        return EXIT_DONE, "done", None

    @property
    def _update(self) -> int:
        """Number of optimizer updates so far."""
        return self.trainer.state.update if self.trainer is not None else 0

    def _train(self, heartbeat: Heartbeat | None) -> None:
        record, config, world = self.record, self.config, self.world
        inputs = world.on_every_rank("reading its data", self._load_inputs)
        splits = inputs.splits
        if world.is_first:
            self._write_provenance(splits)
        self.sinks = open_sinks(record, config, world.is_first)
        context = RunContext(
            world,
            Sinks([self.sinks, heartbeat, self._loader_hint(splits, heartbeat)]) if heartbeat else self.sinks,
            record.checkpoint_dir,
            heartbeat.progress if heartbeat else lambda update, updates: None,
            lambda: self.stop.reason,
        )
        self.trainer = Trainer(config, splits, context, inputs.weights, inputs.keep_rates)
        self.log(_summary(record, self.trainer))
        result = run_result(record, config, world, self.trainer.run())
        if splits.skipped:
            result["data_skipped"] = len(splits.skipped)
        if lost := count_unreadable(splits.unreadable, world):
            result["data_lost"] = lost
        if world.is_first:
            if config.tracker.upload_weights:
                write_weights(record.weights_file, self.trainer.state.model.state_dict())
            write_json(record.path / "result.json", result)
        self.result = result

    def _load_inputs(self) -> Inputs:
        with self.stop.at_once():
            return load_inputs(self.record, self.config, self.world.device)

    def _write_provenance(self, splits: Splits) -> None:
        path = self.record.path
        origin = provenance.collect(
            splits.fingerprint, str(self.world.device), splits.skipped, splits.decoder, splits.class_names
        )
        write_json(path / "provenance.json", origin)
        write_text(path / "requirements.txt", provenance.requirements())
        if splits.skipped:
            self.log(f"{path}: {skipped_line(splits.skipped)}")

    def _loader_hint(self, splits: Splits, heartbeat: Heartbeat) -> Sink:
        """Return a sink that gives advice in the log and in the status if training waits for data."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.world.size))

        def advise(line: str) -> None:
            self.log(line)
            heartbeat.hint(line)

        def advice(share_pct: float) -> str:
            is_random = splits.train.is_random
            return loader_hint(share_pct, self.config.data, splits.decoder, is_random, splits.in_shards, processes)

        return LoaderHint(advice, advise)


def _summary(record: Record, trainer: Trainer) -> str:
    """Return the first line of the log: batch, learning rate, mask updates, and the update at which training starts."""
    length, loader = trainer.length, trainer.loader
    facts = [
        f"{count_of(length.updates, 'update')} of {count_of(length.global_batch, 'image')} "
        f"({count_of(trainer.world.size, 'rank')} x {loader.accumulate} x {loader.micro})",
        f"peak learning rate {trainer.recipe.peak_lr:g}",
    ]
    if masks := mask_cells(trainer.config, length):
        interval, end = masks["mask_interval_updates"], masks["mask_end_update"]
        facts.append(f"masks change every {count_of(interval, 'update')} below {end}")
    facts.append(f"published training {paper_updates(trainer.config):,.0f} updates")
    if trainer.resumed_from:
        facts.append(f"resumed from update {trainer.resumed_from}")
    return f"{record.path}: {', '.join(facts)}"
