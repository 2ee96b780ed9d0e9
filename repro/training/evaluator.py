"""Evaluation during training: accuracy of the model and its EMA on the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import torch
from torch import nn

from repro.config import Config
from repro.data.loader import evaluation_batches
from repro.data.splits import Images, Splits
from repro.data.workers import Batch
from repro.distributed import World
from repro.training.accuracy import Accuracy, count_correct
from repro.training.state import TrainingState
from repro.training.step import Step


class Evaluator:
    """Evaluates the training state.

    Args:
        check_stop: called after each batch that all ranks have; it may raise `Interrupted`.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        world: World,
        state: TrainingState,
        step: Step,
        check_stop: Callable[[], None],
    ) -> None:
        self._splits, self._world, self._state, self._step = splits, world, state, step
        self._check_stop = check_stop
        self._batch, self._workers = config.effective_recipe.eval_batch, config.data.workers

    def metrics(self, *, is_last: bool) -> dict[str, float]:
        """Return the metrics of one evaluation, accuracies in percent. Every rank must call it.

        Several views per image cost as much as that many evaluations, so only the last evaluation of a run uses them.
        """
        parts, ema = self._state.parts, self._state.optimization.ema
        for part in parts:
            part.before_evaluation()
        accuracy = self.accuracy(self._state.model)
        metrics = {"top1_pct": accuracy.top1_pct, "top5_pct": accuracy.top5_pct, "eval_loss": accuracy.loss}
        for part in parts:
            metrics |= part.evaluation(self._world.total)
        if ema is not None:
            for part in parts:
                part.constrain(ema.module)
            averaged = self.accuracy(ema.module)
            metrics |= {"top1_ema_pct": averaged.top1_pct, "top5_ema_pct": averaged.top5_pct}
        if is_last:
            for name, images in self._splits.views.items():
                metrics[f"top1_{name}_pct"] = self.accuracy(self._state.model, images).top1_pct
        return metrics

    @torch.inference_mode()
    def accuracy(self, model: nn.Module, views: Images | None = None) -> Accuracy:
        """Return the accuracy of `model` on the test images, or on `views`, which has several views of each image."""
        world = self._world
        images = self._splits.test if views is None else views
        batch = self._batch if views is None else max(1, self._batch // len(views[0][0]))
        with (
            closing(evaluation_batches(images, batch, self._workers, world.rank, world.size)) as batches,
            self._step.seeded("evaluate", self._state.update),
        ):
            # Some ranks may have one batch more than others; collectives are allowed only for batches that all have.
            checked = self._checked(batches, common=len(images) // world.size // batch)
            return Accuracy.from_totals(world.total(count_correct(model, checked, world.device)))

    def _checked(self, batches: Iterable[Batch], common: int) -> Iterator[Batch]:
        """Yield all batches, and check for a stop after each of the first `common`, which all ranks have."""
        for number, batch in enumerate(batches):
            yield batch
            if number < common:
                self._check_stop()
