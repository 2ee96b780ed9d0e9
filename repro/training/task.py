"""One attempt at one run: what a job executes. It is given a record's folder only, and leaves the truth there."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from repro.config import PRETRAINED, Config
from repro.data.splits import Splits, load_splits, skipped_line
from repro.errors import UserError
from repro.measure.cost import row_cost
from repro.measure.keep_rates import Kept
from repro.models.pretrained import pretrained_weights
from repro.runs import provenance
from repro.runs.files import write_json, write_text
from repro.runs.record import Record
from repro.runs.status import EXIT_STOPPED, State
from repro.schedule import paper_updates
from repro.tracking.open import open_sinks
from repro.tracking.sinks import Sinks
from repro.training import checkpoint
from repro.training.distributed import PeerFailed, World, join_world, leave_world
from repro.training.heartbeat import Heartbeat
from repro.training.interruption import Interrupted, StopFlag
from repro.training.loader_hint import LoaderHint, loader_hint
from repro.training.loop import RunFailed, Surroundings, Trainer
from repro.training.lost import lost_files
from repro.training.weights_file import write_weights

EXIT_DONE, EXIT_FAILED = 0, 1
TAKE_OVER_S = 300.0  # how long an older attempt may take to notice that it has been superseded, save and leave


def execute(
    path: Path,
    attempt: int | None = None,
    job_id: str | None = None,
    tell: Callable[[str], None] = print,
    take_over_s: float = TAKE_OVER_S,
) -> int:
    """Bring the run at `path` to its end, or as far as it gets; returns the process's exit code.

    Done runs are left alone. `attempt` is the number that this process has claimed, None: claims one. Where an older
    attempt is still alive, this one waits for it to stop: a job that was requeued after its node was given up for lost
    must not wait for that node. The record is locked for as long as this process lives. Every outcome is in
    status.json: done, requeued (stopped, goes on later) or failed; the exit code says the same.
    """
    record = Record(path)
    config = record.config()
    with StopFlag() as stop:
        try:
            with stop.at_once():
                world = join_world(config.run.device, config.launcher.wants_gpus)
        except Interrupted:
            return EXIT_STOPPED
        except UserError as error:  # a device that one of the ranks does not have
            if int(os.environ.get("RANK", "0")) == 0:
                record.set_status(record.status().moved("failed", reason=str(error)))
            tell(f"{path}: {error}")
            return EXIT_FAILED
        lock = FileLock(path / "lock")
        try:
            if world.any_of(record.result() is not None)[0]:
                if world.is_first and record.status().state != "done":  # killed between the two writes
                    record.set_status(record.status().moved("done", reason=None))
                return EXIT_DONE
            number = world.together("taking the run", lambda: _take(record, lock, attempt, world, stop, take_over_s))
            if world.any_of(record.result() is not None)[0]:  # the older attempt has finished it meanwhile
                return EXIT_DONE
            return _attempt(record, config, world, stop, _Identity(number, job_id), tell)
        except Interrupted as interruption:
            tell(f"{path}: stopped by {interruption}")
            return EXIT_STOPPED
        except PeerFailed as failed:
            tell(f"{path}: {failed}")
            return EXIT_FAILED
        finally:
            lock.release()
            leave_world()


def _take(record: Record, lock: FileLock, attempt: int | None, world: World, stop: StopFlag, take_over_s: float) -> int:
    """Claim the run and wait for its lock, on the first rank only; returns the attempt's number, 0 on other ranks.

    Raises `Interrupted` where an older attempt does not leave: this one goes when it is started again. And where the
    run was cancelled while it waited, when this process had been started already.
    """
    if not world.is_first:
        return 0
    number = record.claim_attempt() if attempt is None else attempt
    with stop.at_once():
        try:
            lock.acquire(timeout=take_over_s, poll_interval=0.2)
        except Timeout:
            raise Interrupted(
                f"an older attempt that is still at this run: it has not left within {take_over_s:g} s"
            ) from None
    if record.status().is_cancelled_unstarted:
        raise Interrupted("repro cancel, before it began")
    _remove_leftovers(record)
    return number


@dataclass(frozen=True)
class _Identity:
    attempt: int
    job_id: str | None


def _remove_leftovers(record: Record) -> None:
    """Files that a killed attempt left half written. The lock is held: nobody is at them."""
    for folder in (record.path, record.checkpoint_dir):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def _attempt(
    record: Record, config: Config, world: World, stop: StopFlag, who: _Identity, tell: Callable[[str], None]
) -> int:
    if config.scale.cpu_threads:
        torch.set_num_threads(config.scale.cpu_threads)
    status = record.status().moved(
        "running",
        attempt=who.attempt,
        job_id=who.job_id,
        host=platform.node(),
        pid=os.getpid(),
        user=os.getuid(),
        reason=None,
        started=time.time(),
        updates=0,
        loader_share_pct=None,
        hint=None,
    )
    sinks: Sinks | None = None
    trainer: Trainer | None = None
    result: dict[str, Any] | None = None
    with Heartbeat(record, status, stop) if world.is_first else nullcontext() as beat:
        try:
            splits, weights, budget = world.together("reading its data", lambda: _inputs(record, config, world, stop))
            if world.is_first:
                origin = provenance.collect(splits.fingerprint, str(world.device), splits.skipped, splits.decoder)
                write_json(record.path / "provenance.json", origin)
                write_text(record.path / "requirements.txt", provenance.requirements())
                if splits.skipped:
                    tell(f"{record.path}: {skipped_line(splits.skipped)}")
            sinks = open_sinks(record, config, world.is_first)
            around = Surroundings(
                world,
                Sinks([sinks, beat, _loader_hint(config, splits, world, beat, tell)]) if beat else sinks,
                record.checkpoint_dir,
                beat.progress if beat else _no_progress,
                lambda: stop.reason,
            )
            trainer = Trainer(config, splits, around, weights, budget)
            tell(_opening(record, config, trainer))
            result = _result(record, config, world, trainer.run())
            if splits.skipped:
                result["data_skipped"] = len(splits.skipped)
            if lost := lost_files(splits.lost, world):
                result["data_lost"] = lost
            if world.is_first:
                if config.tracker.upload_weights:
                    write_weights(record.weights_file, trainer.state.model.state_dict())
                write_json(record.path / "result.json", result)
            _end(beat, "done", None)
        except Interrupted as interruption:
            # The trainer knows, and not the last status: an attempt that was killed got further than it had saved.
            at = trainer.state.update if trainer is not None else 0
            tell(f"rank {world.rank}: stopped by {interruption} after update {at}")
            _end(beat, "requeued", f"stopped by {interruption}; goes on from update {at}")
            return EXIT_STOPPED
        except (RunFailed, UserError, PeerFailed) as error:
            tell(f"failed: {error}")
            _end(beat, "failed", str(error))
            return EXIT_FAILED
        except Exception as error:
            traceback.print_exc()
            _end(beat, "failed", f"{type(error).__name__}: {error}")
            return EXIT_FAILED
        finally:
            if sinks is not None:
                sinks.close(result)
    return EXIT_DONE


def _loader_hint(
    config: Config, splits: Splits, world: World, beat: Heartbeat, tell: Callable[[str], None]
) -> LoaderHint:
    """A hint that stands in the log and in the status."""
    images = splits.train
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))

    def both(line: str) -> None:
        tell(line)
        beat.hint(line)

    return LoaderHint(
        lambda share: loader_hint(share, config.data, images.is_random, splits.in_shards, ranks_here), both
    )


def _end(beat: Heartbeat | None, state: State, reason: str | None) -> None:
    if beat is not None:
        beat.end(state, reason)


def _no_progress(update: int, updates: int) -> None:
    """Ranks other than the first tell nobody."""


def _inputs(
    record: Record, config: Config, world: World, stop: StopFlag
) -> tuple[Splits, dict[str, Any] | None, tuple[float, ...] | None]:
    """The images, the weights to begin with, and the keep rates that another run has measured, if any are wanted."""
    with stop.at_once():
        splits = load_splits(config.data, config.recipe, config.model, _began_with(record))
        origin, budget = record.starts_from(), None
        if origin is not None and config.method.tokens is not None and config.method.tokens.takes_budget:
            budget = _keep_rates(origin)
            origin = origin.starts_from()  # so that both begin alike
        weights: dict[str, Any] | None
        if config.method.starts_from == PRETRAINED or (origin is None and budget is not None):
            weights = pretrained_weights(config.backbone.timm_name, config.model, config.backbone.paper)
        else:
            weights = None if origin is None else _weights_of(origin, world)
    _check_same_data(record, splits.fingerprint)
    return splits, weights, budget


def _keep_rates(origin: Record) -> tuple[float, ...]:
    """What a finished run kept at its end. Raises `UserError` where it is not finished, or drops no tokens."""
    tokens = origin.config().method.tokens
    kept = Kept.measured([origin.result() or {}], len(tokens.keep_rates)) if tokens is not None else None
    if kept is None:
        raise UserError(f"takes its keep rates from {origin.path}, which has not measured any; launch that row first")
    return kept.mean


def _weights_of(origin: Record, world: World) -> dict[str, Any]:
    """The trained weights of the run that this one begins with: those it has ended with, and no earlier ones."""
    result = origin.result()
    if result is None:
        raise UserError(f"begins with the weights of {origin.path}, which is not finished; launch that row first")
    saved = checkpoint.load_after(origin.checkpoint_dir, result["updates"], world.device)
    if saved is None:
        url = origin.provenance().get("pulled_from")
        which = f"was pulled and has no weights here ({url})" if url else "is finished and has lost its last checkpoint"
        raise UserError(
            f"begins with the weights of {origin.path}, which {which}; copy its checkpoint/ from the machine that made "
            "it, or remove that folder and launch that row"
        )
    weights: dict[str, Any] = saved["model"]
    return weights


def _check_same_data(record: Record, fingerprint: str) -> None:
    """Raise `UserError` where a run that has begun would go on with other data than it began with."""
    before = _began_with(record)
    if before not in (None, fingerprint):
        raise UserError(
            f"{record.path}: began with data of fingerprint {before}, now it is {fingerprint}; give it the data it "
            "began with, or remove that folder to begin anew"
        )


def _began_with(record: Record) -> str | None:
    """The fingerprint of the data that a run has trained with so far; None for one that has nothing to go on from."""
    if not any(record.checkpoint_dir.glob("update-*.pt")):
        return None
    found: str | None = record.provenance().get("data_fingerprint")
    return found


def _opening(record: Record, config: Config, trainer: Trainer) -> str:
    """What a log should say first."""
    length, loader = trainer.length, trainer.loader
    resumed = f", resumed from update {trainer.resumed_from}" if trainer.resumed_from else ""
    return (
        f"{record.path}: {length.updates} updates of {length.global_batch} images "
        f"({trainer.world.size} ranks x {loader.accumulate} x {loader.micro}), "
        f"peak learning rate {trainer.recipe.peak_lr:g}, {_mask_schedule(trainer)}"
        f"published training {paper_updates(config):.0f} updates{resumed}"
    )


def _mask_schedule(trainer: Trainer) -> str:
    schedule = trainer.mask_schedule()
    if not schedule:
        return ""
    return f"masks change every {schedule['mask_interval_updates']} updates below {schedule['mask_end_update']}, "


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
        **{
            name: value
            for name, value in asdict(row_cost(config, [measured])).items()
            if name not in ("is_exact", "is_measured")
        },
        **measured,
    }
