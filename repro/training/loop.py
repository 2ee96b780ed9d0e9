"""The training loop. What is specific to a method lives in its parts; what is specific to a place lives in the task."""

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
from torch import Tensor, nn

from repro.config import Config
from repro.cross_checks import schedule_errors
from repro.data.loader import TrainLoader, evaluation_batches
from repro.data.splits import Images, Splits
from repro.errors import UserError
from repro.models.backbone import build_model
from repro.schedule import Length, mask_schedule, training_length, updates_per_iteration
from repro.seeding import stream_seed
from repro.sparsity.selection import NotANumber
from repro.tracking.sinks import Sinks
from repro.training import checkpoint
from repro.training.distributed import World
from repro.training.evaluation import Accuracy, evaluate
from repro.training.interruption import Interrupted
from repro.training.method import build_parts
from repro.training.recipe import build_training
from repro.training.state import Best, TrainingState
from repro.training.step import Step

# What every evaluation says; what else is in one, a part has said.
_ACCURACIES = (
    *("update", "epoch", "top1_pct", "top5_pct", "eval_loss"),
    *("top1_ema_pct", "top5_ema_pct"),
)


class RunFailed(Exception):
    """The run cannot go on, for a reason that its owner should read: a loss that is not a number, say."""


@dataclass(frozen=True)
class Surroundings:
    """What the loop is given beside its config: ranks, sinks, a place for checkpoints, and who wants to know.

    `progress` is told (update, updates) after every update; `should_stop` is asked between updates and while evaluating
    and gives a reason, or None.
    """

    world: World
    sinks: Sinks
    checkpoints: Path
    progress: Callable[[int, int], None]
    should_stop: Callable[[], str | None]


class Trainer:
    """One run, from its config and data to its result, resuming from the newest checkpoint that is whole.

    `weights` are those of the finished run that this one begins with, if any; `budget` the keep rates that it takes
    from another one.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        around: Surroundings,
        weights: dict[str, Tensor] | None = None,
        budget: Sequence[float] | None = None,
    ) -> None:
        self.config, self.splits, self.around = config, splits, around
        self.world = around.world
        self.recipe = recipe = config.own_recipe
        self.loader = TrainLoader(
            splits.train,
            global_batch=recipe.global_batch,
            micro_batch=recipe.micro_batch,
            seed=config.seed,
            repeats=recipe.repeated_augmentation,
            workers=config.data.workers,
            rank=self.world.rank,
            world=self.world.size,
            device=self.world.device,
        )
        self.length: Length = training_length(config, len(splits.train))
        if errors := schedule_errors(config, self.length):
            raise UserError("; ".join(errors))
        pace = updates_per_iteration(config, self.length)
        model = build_model(config.model, recipe.drop_path, stream_seed("model", config.seed)).to(self.world.device)
        if (weights is None) != (config.method.starts_from is None):
            raise UserError(
                f"method={config.method.name} begins with the weights of {config.method.starts_from or 'no other run'}"
            )
        if weights is not None:
            model.load_state_dict(weights)
        # Masks live where their weights do, so the model moves first; modules that parts add move after.
        parts = build_parts(config, model, self.length, budget)
        model = model.to(self.world.device)
        for part in parts:
            part.constrain(model)
        classes = config.model.num_classes
        training = build_training(model, recipe, classes, self.length, pace, config.stages, config.restarts)
        self.state = TrainingState(model, training, parts)
        self.state.loss_sum = self.state.loss_sum.to(self.world.device)
        for part in parts:
            part.start(training.optimizer)
        self.step = Step(
            self.state,
            self.world,
            amp=recipe.amp,
            clip_grad_norm=recipe.clip_grad_norm,
            accumulate=self.loader.accumulate,
            seed=config.seed,
            compiled=config.run.compile,
            checkpointing=config.run.checkpoint_activations,
        )
        self._saved_at = time.monotonic()
        self.resumed_from = self._resume()

    def _resume(self) -> int:
        saved = checkpoint.load_latest(self.around.checkpoints, self.world.device)
        if saved is not None:
            self.state.load_state_dict(saved)
            losses = saved.get("loss_sum_of_ranks")
            if losses is not None:  # a checkpoint of other ranks: the log goes on with their mean
                same = len(losses) == self.world.size
                self.state.loss_sum.copy_(losses[self.world.rank] if same else losses.mean())
        else:
            self._prepare()
        return self.state.update

    def _prepare(self) -> None:
        try:
            for part in self.state.parts:
                part.prepare(self._backward_only)
        except NotANumber as error:
            raise RunFailed(f"pruning before the first update: {error}") from error
        self._write_mask_history()

    def run(self) -> dict[str, float | None]:
        """Train to the end and return the measured cells, with units in their names.

        Raises `Interrupted` after saving, when asked to stop; `RunFailed` for a loss that is not finite.
        """
        state, per_epoch = self.state, self.length.updates_per_epoch
        while True:
            epochs_done = state.update // per_epoch
            if state.update % per_epoch == 0 and state.evaluated_epochs < epochs_done:
                self._evaluate(epochs_done)
            if state.update >= self.length.updates:
                return self._result()
            self._train_epoch(epochs_done)

    def _train_epoch(self, epoch: int) -> None:
        state, per_epoch = self.state, self.length.updates_per_epoch
        state.model.train()
        stream = self.loader.batches(epoch, state.update % per_epoch)
        batches = iter(stream)
        started, waited = time.monotonic(), 0.0
        since = state.update
        try:
            while state.update < (epoch + 1) * per_epoch:
                learning_rate = self._update(batches)
                self.around.progress(state.update, self.length.updates)
                if state.update % self.config.run.log_every_updates == 0 or state.update % per_epoch == 0:
                    elapsed = time.monotonic() - started
                    self._log_training(learning_rate, elapsed, state.update - since, stream.waited_s - waited)
                    state.wall_s += elapsed
                    started, since, waited = time.monotonic(), state.update, stream.waited_s
                self._stop_or_save()
        finally:
            stream.close()

    def _update(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """One optimizer update over the whole global batch; returns its learning rate."""
        update = self.state.update + 1
        learning_rate = self.state.training.set_learning_rate(update, self.length)
        try:
            self.step.run(batches)
        except NotANumber as error:
            raise RunFailed(f"mask update after update {update}: {error}") from error
        self._write_mask_history()
        return learning_rate

    def _backward_only(self, global_batches: int) -> None:
        """What `MethodPart.prepare` is given: gradients, and no update. Its batches are the first of the training."""
        self.state.model.train()
        self.state.training.optimizer.zero_grad(set_to_none=True)
        # Batch norm counts what it sees; nothing of this is training.
        kept = [(buffer, buffer.clone()) for buffer in self.state.model.buffers()]
        with closing(self._batches_of_all_epochs()) as batches, self.step.seeded("prepare", 0):
            self.step.backward(batches, global_batches)
        for buffer, before in kept:
            buffer.copy_(before)

    def _batches_of_all_epochs(self) -> Generator[tuple[Tensor, Tensor]]:
        for epoch in itertools.count():
            with closing(self.loader.batches(epoch, 0)) as stream:
                yield from stream

    def _log_training(self, learning_rate: float, elapsed_s: float, updates: int, waited_s: float) -> None:
        state = self.state
        # Of the rank that waited longest: at the next all-reduce the others wait for it.
        waited_s = float(self.world.of_each(torch.tensor(waited_s, device=self.world.device)).max())
        loss = float(self.world.total(state.loss_sum.clone())) / self.world.size / state.loss_updates
        state.loss_sum.zero_()
        state.loss_updates = 0
        if not math.isfinite(loss):
            raise RunFailed(f"the loss is not finite ({loss}) at update {state.update} of {self.length.updates}")
        entry: dict[str, Any] = {
            "kind": "train",
            "update": state.update,
            "epoch": state.update / self.length.updates_per_epoch,
            "loss": loss,
            "learning_rate": learning_rate,
            **self._part_metrics(),
            "step_time_ms": 1000 * elapsed_s / max(1, updates),
            "images_per_s": updates * self.length.global_batch / max(elapsed_s, 1e-9),
            "loader_share_pct": min(100.0, 100 * waited_s / max(elapsed_s, 1e-9)),
        }
        if self.world.is_first:
            self.around.sinks.write(entry)

    def _write_mask_history(self) -> None:
        """One entry for each update that changed masks, so that a record tells how they moved."""
        update = self.state.update
        found = [entry for part in self.state.parts if (entry := part.mask_history(update)) is not None]
        if found and self.world.is_first:
            epoch = update / self.length.updates_per_epoch
            values = {name: value for entry in found for name, value in entry.items()}
            self.around.sinks.write({"kind": "masks", "update": update, "epoch": epoch, **values})

    def _part_metrics(self) -> dict[str, float]:
        return {name: value for part in self.state.parts for name, value in part.metrics().items()}

    def _evaluate(self, epoch: int) -> None:
        """Evaluate after `epoch` epochs, where the recipe says so; log, remember the best, save."""
        state, every = self.state, self.recipe.evaluate_every_epochs
        if epoch % every == 0 or epoch == self.length.epochs:
            started = time.monotonic()
            for part in state.parts:
                part.before_evaluation()
            raw = self._accuracy(state.model)
            entry: dict[str, Any] = {
                "kind": "eval",
                "update": state.update,
                "epoch": epoch,
                "top1_pct": raw.top1_pct,
                "top5_pct": raw.top5_pct,
                "eval_loss": raw.loss,
            }
            for part in state.parts:
                entry |= part.evaluation(self.world.total)
            if state.training.ema is not None:
                averaged = state.training.ema.module
                for part in state.parts:
                    part.constrain(averaged)
                ema = self._accuracy(averaged)
                entry |= {"top1_ema_pct": ema.top1_pct, "top5_ema_pct": ema.top5_pct}
            if epoch == self.length.epochs:  # several views of each image cost as many evaluations
                for name, images in self.splits.views.items():
                    entry[f"top1_{name}_pct"] = self._accuracy(state.model, images).top1_pct
            is_sparse = all(part.is_at_target(state.update) for part in state.parts)
            if is_sparse and raw.top1_pct > state.best.top1_pct:
                state.best = Best(raw.top1_pct, epoch)
                if self.world.is_first:
                    checkpoint.save_best(self.around.checkpoints, state.weights())
            state.last = {name: float(value) for name, value in entry.items() if name != "kind"}
            state.wall_s += time.monotonic() - started
            if self.world.is_first:
                self.around.sinks.write(entry)
        state.evaluated_epochs = epoch
        self._save()

    def _accuracy(self, model: nn.Module, views: Images | None = None) -> Accuracy:
        """On the test images, or on several views of each."""
        world, test = self.world, views or self.splits.test
        batch = self.recipe.eval_batch if views is None else max(1, self.recipe.eval_batch // len(views[0][0]))
        with (
            closing(evaluation_batches(test, batch, self.config.data.workers, world.rank, world.size)) as batches,
            self.step.seeded("evaluate", self.state.update),
        ):
            # Ranks may have one batch more or fewer; they may only talk to each other where all have one.
            return evaluate(model, batches, world, self._stop_if_asked, len(test) // world.size // batch)

    def _stop_or_save(self) -> None:
        """Between two updates: stop if any rank was asked to, save if it is time."""
        reason = self.around.should_stop()
        stop, due = self.world.any_of(
            reason is not None, time.monotonic() - self._saved_at > self.config.run.checkpoint_every_s
        )
        if stop or due:
            self._save()
        if stop:
            raise Interrupted(reason or "another rank, which was asked to stop")

    def _stop_if_asked(self) -> None:
        """While evaluating: nothing is lost, the evaluation is done again after the resume."""
        reason = self.around.should_stop()
        (stop,) = self.world.any_of(reason is not None)
        if stop:
            self._save()
            raise Interrupted(reason or "another rank, which was asked to stop")

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        # The one thing that ranks have not in common; logged as a mean over all of them, after a resume too.
        losses = self.world.of_each(self.state.loss_sum)
        if self.world.is_first:
            state = {**self.state.state_dict(), "loss_sum_of_ranks": losses}
            checkpoint.save(self.around.checkpoints, self.state.update, state)
        self.world.barrier()

    def mask_schedule(self) -> dict[str, int]:
        """Every how many optimizer updates masks change, and from which on they stay; empty where they never change."""
        schedule = mask_schedule(self.config, self.length)
        return {} if schedule is None else {"mask_interval_updates": schedule.interval, "mask_end_update": schedule.end}

    def _result(self) -> dict[str, float | None]:
        state = self.state
        return {
            "updates": state.update,
            "epochs": self.length.epochs,
            "global_batch": self.length.global_batch,
            "accumulation_steps": self.loader.accumulate,
            "peak_learning_rate": self.recipe.peak_lr,
            **self.mask_schedule(),
            "wall_s": round(state.wall_s, 3),
            "top1_last_pct": state.last["top1_pct"],
            "top5_last_pct": state.last["top5_pct"],
            "loss_last": state.last["eval_loss"],
            "top1_ema_last_pct": state.last.get("top1_ema_pct"),
            "top1_best_pct": state.best.top1_pct,
            "top1_best_epoch": state.best.epoch,
            **{name: value for name, value in state.last.items() if name not in _ACCURACIES},
            **self._part_metrics(),
            # What a report counts the MACs of global pruning from; all digits, for they decide a total.
            **{f"density/{name}": v for part in state.parts for name, v in part.layer_density().items()},
        }
