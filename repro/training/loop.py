"""The training loop: epochs of optimizer updates, logging, evaluation and checkpoints.

It calls hooks (`repro.methods.base.MethodPart`) and refers to no method by name. `RunContext` is its interface to the
process that runs it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.config import Config
from repro.data.splits import Splits
from repro.distributed import World
from repro.interruption import Interrupted
from repro.methods.weights.selection import NotANumber
from repro.seeding import preserved_generators
from repro.tracking.sinks import Sink
from repro.training import checkpoint
from repro.training.assembly import assemble
from repro.training.evaluator import Evaluator
from repro.training.result import training_cells
from repro.training.state import Best


class RunFailed(Exception):
    """Raised when training cannot continue, for example because the loss is not finite."""


@dataclass(frozen=True)
class RunContext:
    """What the loop needs from the process that runs it.

    Attributes:
        world: this process among the ranks of the run.
        sink: receives the metric entries of the first rank.
        checkpoints: the folder of the checkpoints.
        progress: called with (update, updates) after every update.
        stop_reason: returns why the run has to stop, or None; called between updates and during evaluation.
    """

    world: World
    sink: Sink
    checkpoints: Path
    progress: Callable[[int, int], None]
    stop_reason: Callable[[], str | None]


class Trainer:
    """Trains one run from its config and data to its result. Resumes from the newest intact checkpoint.

    Args:
        weights: initial weights, for a method that starts from those of another run.
        keep_rates: token keep rates measured by another run, for a method that uses them.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        context: RunContext,
        weights: dict[str, Tensor] | None = None,
        keep_rates: Sequence[float] | None = None,
    ) -> None:
        self.config, self.splits, self.context, self.world = config, splits, context, context.world
        self.recipe = config.effective_recipe
        assembly = assemble(config, splits.train, self.world, weights, keep_rates)
        self.loader, self.length = assembly.loader, assembly.length
        self.state, self.step = assembly.state, assembly.step
        share = config.run.keep_weights_after
        self._kept_update = None if share is None else self.length.updates_of(share)
        self.evaluator = Evaluator(config, splits, self.world, self.state, self.step, self._stop_if_requested)
        self._saved_at = time.monotonic()
        self.resumed_from = self._resume()

    def _resume(self) -> int:
        """Load the newest checkpoint, or prepare the method for the first update. Return the number of updates done."""
        saved = checkpoint.load_latest(self.context.checkpoints, self.world.device)
        if saved is None:
            self._prepare()
            return 0
        self.state.load_state_dict(saved)
        losses = saved.get("loss_sum_of_ranks")
        if losses is not None:
            # If the number of ranks has changed, each continues with the mean, which is what the log shows.
            is_same_world = len(losses) == self.world.size
            self.state.loss_sum.copy_(losses[self.world.rank] if is_same_world else losses.mean())
        return self.state.update

    def _prepare(self) -> None:
        try:
            for part in self.state.parts:
                part.prepare(self.accumulate_gradients)
        except NotANumber as error:
            raise RunFailed(f"pruning before the first update: {error}") from error
        self._log_masks()

    def accumulate_gradients(self, global_batches: int) -> None:
        """Compute gradients for `MethodPart.prepare` on the first training batches, without an update."""
        self.state.model.train()
        self.state.optimization.optimizer.zero_grad(set_to_none=True)
        # A forward pass changes the running statistics of batch norm; they are restored, because this is not training.
        buffers = [(buffer, buffer.clone()) for buffer in self.state.model.buffers()]
        with closing(self._batches_of_all_epochs()) as batches, self.step.seeded("prepare", 0):
            self.step.backward(batches, global_batches)
        for buffer, before in buffers:
            buffer.copy_(before)

    def _batches_of_all_epochs(self) -> Generator[tuple[Tensor, Tensor]]:
        for epoch in itertools.count():
            with closing(self.loader.batches(epoch, 0)) as stream:
                yield from stream

    def run(self) -> dict[str, float | None]:
        """Train to the end and return the measured cells of the result, with units in their names.

        Raises `Interrupted` after saving a checkpoint if a stop was requested, `RunFailed` if the loss is not finite.
        """
        state, per_epoch = self.state, self.length.updates_per_epoch
        while True:
            epochs_done = state.update // per_epoch
            if state.update % per_epoch == 0 and state.evaluated_epochs < epochs_done:
                self._end_epoch(epochs_done)
            if state.update >= self.length.updates:
                return training_cells(self.config, self.length, state, self.loader.accumulate)
            with preserved_generators():
                self._train_epoch(epochs_done)

    def _train_epoch(self, epoch: int) -> None:
        """Run the remaining updates of `epoch`, counted from 0."""
        state, per_epoch = self.state, self.length.updates_per_epoch
        state.model.train()
        stream = self.loader.batches(epoch, state.update % per_epoch)
        batches = iter(stream)
        counted_at = logged_at = time.monotonic()
        logged_update, logged_wait_s = state.update, 0.0
        try:
            while state.update < (epoch + 1) * per_epoch:
                learning_rate = self.update(batches)
                self.context.progress(state.update, self.length.updates)
                if state.update % self.config.run.log_every_updates == 0 or state.update % per_epoch == 0:
                    elapsed_s = time.monotonic() - logged_at
                    self._log_training(
                        learning_rate, elapsed_s, state.update - logged_update, stream.waited_s - logged_wait_s
                    )
                    logged_at, logged_update, logged_wait_s = time.monotonic(), state.update, stream.waited_s
                now = time.monotonic()
                state.wall_s += now - counted_at
                counted_at = now
                self._stop_or_save()
        finally:
            stream.close()

    def update(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """Run one optimizer update over the whole global batch and return its learning rate.

        Raises `RunFailed` if masks would be selected based on values that are NaN.
        """
        update = self.state.update + 1
        learning_rate = self.state.optimization.set_learning_rate(update, self.length)
        try:
            self.step.run(batches)
        except NotANumber as error:
            raise RunFailed(f"mask update after update {update}: {error}") from error
        self._log_masks()
        if update == self._kept_update and self.world.is_first:
            path = checkpoint.weights_path(self.context.checkpoints, update)
            checkpoint.save_weights(path, update, self.state.model.state_dict())
        return learning_rate

    def _log_training(self, learning_rate: float, elapsed_s: float, updates: int, waited_s: float) -> None:
        state = self.state
        # The rank that waited longest for its data holds up all others at the next all-reduce.
        waited_s = float(self.world.all_gather(torch.tensor(waited_s, device=self.world.device)).max())
        loss = float(self.world.total(state.loss_sum.clone())) / self.world.size / state.loss_updates
        state.loss_sum.zero_()
        state.loss_updates = 0
        if not math.isfinite(loss):
            raise RunFailed(f"the loss is not finite ({loss}) at update {state.update} of {self.length.updates}")
        self._log(
            "train",
            state.update / self.length.updates_per_epoch,
            {
                "loss": loss,
                "learning_rate": learning_rate,
                **state.part_metrics(),
                "step_time_ms": 1000 * elapsed_s / max(1, updates),
                "images_per_s": updates * self.length.global_batch / max(elapsed_s, 1e-9),
                "loader_share_pct": min(100.0, 100 * waited_s / max(elapsed_s, 1e-9)),
            },
        )

    def _log_masks(self) -> None:
        """Log one entry for each update that changed masks, so that the record has their history."""
        update = self.state.update
        histories = [history for part in self.state.parts if (history := part.mask_history(update)) is not None]
        if histories:
            values = {name: value for history in histories for name, value in history.items()}
            self._log("masks", update / self.length.updates_per_epoch, values)

    def _log(self, kind: str, epoch: float, values: dict[str, Any]) -> None:
        if self.world.is_first:
            self.context.sink.write({"kind": kind, "update": self.state.update, "epoch": epoch, **values})

    def _end_epoch(self, epoch: int) -> None:
        """Evaluate after `epoch` epochs if the recipe asks for it, and save a checkpoint."""
        is_last = epoch == self.length.epochs
        if epoch % self.recipe.evaluate_every_epochs == 0 or is_last:
            self._evaluate(epoch, is_last)
        self.state.evaluated_epochs = epoch
        self._save()

    def _evaluate(self, epoch: int, is_last: bool) -> None:
        state, started = self.state, time.monotonic()
        metrics = self.evaluator.metrics(is_last=is_last)
        is_sparse = all(part.is_at_target(state.update) for part in state.parts)
        if is_sparse and metrics["top1_pct"] > state.best.top1_pct:
            state.best = Best(metrics["top1_pct"], epoch)
            if self.world.is_first:
                path = checkpoint.best_path(self.context.checkpoints)
                checkpoint.save_weights(path, state.update, state.model.state_dict())
        numbers = {"update": state.update, "epoch": epoch, **metrics}
        state.last = {name: float(value) for name, value in numbers.items()}
        state.wall_s += time.monotonic() - started
        self._log("eval", epoch, metrics)

    def _stop_or_save(self) -> None:
        """Stop if any rank was asked to, and save a checkpoint if one is due. Called between two updates."""
        reason = self.context.stop_reason()
        is_due = time.monotonic() - self._saved_at > self.config.run.checkpoint_every_s
        stop, save = self.world.any_rank(reason is not None, is_due)
        if stop or save:
            self._save()
        if stop:
            raise Interrupted(reason or "another rank, which was asked to stop")

    def _stop_if_requested(self) -> None:
        """Save and stop if any rank was asked to. Called during an evaluation, which a resumed run repeats."""
        reason = self.context.stop_reason()
        (stop,) = self.world.any_rank(reason is not None)
        if stop:
            self._save()
            raise Interrupted(reason or "another rank, which was asked to stop")

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        # The losses since the last log entry are the only state that differs between ranks.
        losses = self.world.all_gather(self.state.loss_sum)
        if self.world.is_first:
            state = {**self.state.state_dict(), "loss_sum_of_ranks": losses}
            checkpoint.save(self.context.checkpoints, self.state.update, state)
        self.world.barrier()
