"""The recipe's parts, made by timm: optimizer, learning-rate schedule, mixup, loss, EMA."""

from __future__ import annotations

import bisect
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from repro.errors import UserError, did_you_mean
from repro.schedule import Length, part_starts

if TYPE_CHECKING:
    from repro.config import Recipe


@dataclass(frozen=True)
class TrainingParts:
    """What the loop needs beside model, data and method."""

    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    mixup: Mixup | None
    loss: nn.Module
    ema: ModelEmaV3 | None
    by_update: bool

    def set_learning_rate(self, update: int, length: Length) -> float:
        """Set and return the learning rate of optimizer update `update`, counted from 1."""
        if self.by_update:
            self.scheduler.step_update(update - 1)
        else:
            self.scheduler.step((update - 1) // length.updates_per_epoch)
        return float(self.optimizer.param_groups[0]["lr"])


def build_training(
    model: nn.Module,
    recipe: Recipe,
    num_classes: int,
    length: Length,
    pace: float,
    stages: int = 1,
    restarts: Sequence[float] = (),
) -> TrainingParts:
    """The recipe for one model. The learning rate's cosine begins anew with each of `stages` equal parts.

    So it does at `restarts`, shares of such a part; then there is no warm-up.

    `pace` is the number of updates that stand for one published iteration: the EMA's decay, published per iteration,
    keeps its half-life in images.
    """
    optimizer = _optimizer(model, recipe)
    by_update = recipe.schedule_by == "update"
    scheduler: Scheduler
    if restarts:
        starts = part_starts(length.updates, stages, restarts)
        scheduler = _CosineOfParts(optimizer, [*starts, length.updates + 1], recipe.min_lr, length, by_update)
    else:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=recipe.epochs // stages,
            **({"cycle_limit": stages, "cycle_decay": 1.0} if stages > 1 else {}),
            min_lr=recipe.min_lr,
            warmup_lr=recipe.warmup_lr,
            warmup_epochs=recipe.warmup_epochs,
            step_on_epochs=not by_update,
            updates_per_epoch=length.updates_per_epoch,
        )
    mixing = recipe.mixup > 0 or recipe.cutmix > 0
    mixup = None
    if mixing:
        mixup = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            switch_prob=recipe.mixup_switch_prob,
            label_smoothing=recipe.label_smoothing,
            num_classes=num_classes,
        )
    loss = SoftTargetCrossEntropy() if mixing else LabelSmoothingCrossEntropy(recipe.label_smoothing)
    ema = ModelEmaV3(model, decay=recipe.ema_decay ** (1 / pace)) if recipe.ema_decay else None
    return TrainingParts(optimizer, scheduler, mixup, loss, ema, by_update)


class _CosineOfParts(Scheduler):  # type: ignore[misc]
    """A cosine from the peak to `min_lr` in each of parts of any lengths; timm's has cycles of one length.

    `bounds` are the first updates of the parts, counted from 1, and the one after the last.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, bounds: Sequence[int], min_lr: float, length: Length, by_update: bool
    ) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=not by_update)
        self.bounds, self.min_lr = bounds, min_lr
        self.updates_a_step = 1 if by_update else length.updates_per_epoch

    def _get_lr(self, t: int) -> list[float]:
        update = min(t * self.updates_a_step + 1, self.bounds[-1] - 1)
        part = bisect.bisect(self.bounds, update) - 1
        done = (update - self.bounds[part]) / (self.bounds[part + 1] - self.bounds[part])
        share = 0.5 * (1 + math.cos(math.pi * done))
        return [self.min_lr + (peak - self.min_lr) * share for peak in self.base_values]


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer of that name. Raises `UserError` for one it does not have, or a useless momentum."""
    known = list_optimizers()
    if recipe.optimizer not in known:
        raise UserError(f"recipe.optimizer={recipe.optimizer}: timm has none{did_you_mean(recipe.optimizer, known)}")
    has_momentum: bool = get_optimizer_info(recipe.optimizer).has_momentum
    if has_momentum != (recipe.momentum is not None):
        wanted = "needs one, 0.9 for instance" if has_momentum else "set null"
        raise UserError(f"recipe.momentum={recipe.momentum}: recipe.optimizer={recipe.optimizer} {wanted}")
    options: dict[str, Any] = {} if recipe.momentum is None else {"momentum": recipe.momentum}
    if _has_fused_kernel(recipe.optimizer):
        options["fused"] = True
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.peak_lr, weight_decay=recipe.weight_decay, **options
    )
    return optimizer


def _has_fused_kernel(name: str) -> bool:
    """Whether torch updates all weights of this optimizer in one pass: its own adam, adamw, sgd; none of timm's."""
    return "fused" in inspect.signature(get_optimizer_info(name).opt_class.__init__).parameters
