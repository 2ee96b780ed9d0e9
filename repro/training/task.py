"""One attempt at one run: what a job executes. It is given a record's folder only, and leaves the truth there."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from repro.config import Config
from repro.data.splits import load_splits
from repro.errors import UserError
from repro.runs import provenance
from repro.runs.files import write_json
from repro.runs.record import Record
from repro.runs.status import Status
from repro.schedule import paper_updates
from repro.tracking.open import open_sinks
from repro.tracking.sinks import Sinks
from repro.training import checkpoint
from repro.training.distributed import World, join_world, leave_world
from repro.training.interruption import Interrupted, StopFlag
from repro.training.loop import RunFailed, Surroundings, Trainer

HEARTBEAT_EVERY_S = 1.0
EXIT_DONE, EXIT_FAILED, EXIT_STOPPED = 0, 1, 75  # 75: EX_TEMPFAIL, start it again


def execute(path: Path, tell: Callable[[str], None] = print) -> int:
    """Bring the run at `path` to its end, or as far as it gets; returns the process's exit code.

    Done runs are left alone. The record is locked for as long as this process lives, so two attempts at once cannot
    happen on one file system. Every outcome is in status.json: done, requeued (stopped, goes on later) or failed.
    """
    record = Record(path)
    if record.result() is not None:
        if record.status().state != "done":  # killed between the two writes
            record.set_status(record.status().moved("done", reason=None))
        return EXIT_DONE
    config = record.config()
    world = join_world(config.run.device)
    lock = FileLock(path / "lock")
    try:
        if world.is_first:
            lock.acquire(timeout=0)
        return _attempt(record, config, world, tell)
    except Timeout:
        tell(f"{path}: another process is at this run; left alone")
        return EXIT_STOPPED
    finally:
        lock.release()
        leave_world()


def _attempt(record: Record, config: Config, world: World, tell: Callable[[str], None]) -> int:
    if config.scale.cpu_threads:
        torch.set_num_threads(config.scale.cpu_threads)
    before = record.status()
    status = before.moved("running", attempt=before.attempt + 1, host=platform.node(), pid=os.getpid(), reason=None)
    beat = Heartbeat(record, status, world)
    sinks: Sinks | None = None
    result: dict[str, Any] | None = None
    with StopFlag() as stop:
        try:
            beat.now()
            splits = load_splits(config.data, config.recipe, config.model)
            if world.is_first:
                write_json(record.path / "provenance.json", provenance.collect(splits.fingerprint, str(world.device)))
            sinks = open_sinks(record, config, world.is_first)
            trainer = Trainer(
                config,
                splits,
                Surroundings(world, sinks, record.checkpoint_dir, beat.progress, lambda: stop.reason),
                _weights_to_begin_with(record, world),
            )
            tell(_opening(record, config, trainer))
            result = _result(record, config, world, trainer.run())
            if world.is_first:
                write_json(record.path / "result.json", result)
            beat.end("done", None)
        except Interrupted as interruption:
            beat.end("requeued", f"stopped by {interruption}; goes on from update {beat.status.update}")
            return EXIT_STOPPED
        except (RunFailed, UserError) as error:
            beat.end("failed", str(error))
            tell(f"failed: {error}")
            return EXIT_FAILED
        except Exception as error:
            beat.end("failed", f"{type(error).__name__}: {error}")
            traceback.print_exc()
            return EXIT_FAILED
        finally:
            if sinks is not None:
                sinks.close(result)
    return EXIT_DONE


class Heartbeat:
    """Keeps status.json alive while the loop works; only the first rank writes."""

    def __init__(self, record: Record, status: Status, world: World) -> None:
        self.record, self.status, self.world = record, status, world
        self._written = 0.0

    def progress(self, update: int, updates: int) -> None:
        """Note how far the run is; written at most once a second."""
        self.status = self.status.moved("running", update=update, updates=updates)
        if time.monotonic() - self._written > HEARTBEAT_EVERY_S:
            self.now()

    def end(self, state: Any, reason: str | None) -> None:
        """Write how the attempt ended."""
        self.status = self.status.moved(state, reason=reason)
        self.now()

    def now(self) -> None:
        """Write the status as it is."""
        self._written = time.monotonic()
        if self.world.is_first:
            self.record.set_status(self.status)


def _weights_to_begin_with(record: Record, world: World) -> dict[str, Any] | None:
    """The trained weights of the run that this one begins with; None for a run from scratch."""
    origin = record.starts_from()
    if origin is None:
        return None
    saved = checkpoint.load_latest(origin.checkpoint_dir, world.device) if origin.result() is not None else None
    if saved is None:
        raise UserError(f"begins with the weights of {origin.path}, which is not finished; launch that row first")
    weights: dict[str, Any] = saved["model"]
    return weights


def _opening(record: Record, config: Config, trainer: Trainer) -> str:
    """What a log should say first."""
    length, loader = trainer.length, trainer.loader
    resumed = f", resumed from update {trainer.resumed_from}" if trainer.resumed_from else ""
    return (
        f"{record.path}: {length.updates} updates of {length.global_batch} images "
        f"({trainer.world.size} ranks x {loader.accumulate} x {loader.micro}), "
        f"peak learning rate {trainer.recipe.peak_lr:g}, "
        f"published training {paper_updates(config):.0f} updates{resumed}"
    )


def _result(record: Record, config: Config, world: World, measured: dict[str, float | None]) -> dict[str, Any]:
    about = record.about()
    return {
        "schema": 1,
        "table": about["table"],
        "row": about["row"],
        "scale": config.scale.name,
        "seed": config.seed,
        "signature": about["signature"],
        "dataset": config.data.name,
        "device": str(world.device),
        "world_size": world.size,
        **measured,
    }
