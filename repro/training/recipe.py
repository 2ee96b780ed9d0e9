"""A recipe built with timm: optimizer, learning-rate schedule, mixup, loss and EMA."""

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

from repro.counting.schedule import Length, cycle_starts
from repro.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from repro.config import Recipe


@dataclass(frozen=True)
class Optimization:
    """How a model is optimized."""

    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    mixup: Mixup | None
    loss: nn.Module
    ema: ModelEmaV3 | None

    def set_learning_rate(self, update: int, length: Length) -> float:
        """Set and return the learning rate of optimizer update `update`, counted from 1."""
        # The scheduler ignores the call that is not of its unit (`schedule_by`).
        self.scheduler.step((update - 1) // length.updates_per_epoch)
        self.scheduler.step_update(update - 1)
        return float(self.optimizer.param_groups[0]["lr"])


def build_optimization(
    model: nn.Module,
    recipe: Recipe,
    num_classes: int,
    length: Length,
    pace: float,
    stages: int = 1,
    restarts: Sequence[float] = (),
) -> Optimization:
    """Build the optimization of a model from its recipe.

    Args:
        pace: optimizer updates per published iteration. The EMA's decay is published per iteration and keeps its
            half-life in images.
        stages: number of equal stages; the cosine schedule of the learning rate restarts at each.
        restarts: fractions of a stage at which the cosine schedule restarts as well; there is then no warmup.

    Raises `UserError` if timm does not have the optimizer, or if the optimizer needs a momentum but none is set, or
    takes none but one is set.
    """
    optimizer = _optimizer(model, recipe)
    by_update = recipe.schedule_by == "update"
    scheduler: Scheduler
    if restarts:
        starts = cycle_starts(length.updates, stages, restarts)
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
    ema = _Ema(model, decay=recipe.ema_decay ** (1 / pace)) if recipe.ema_decay else None
    return Optimization(optimizer, scheduler, mixup, loss, ema)


class _Ema(ModelEmaV3):  # type: ignore[misc]
    """timm's EMA, but the tensors of both models are collected only once.

    timm collects both `state_dict`s in every update, which takes a fifth of the time of a small step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay=decay)
        pairs = list(zip(_saved_tensors(self.module), _saved_tensors(model), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Average the model passed to the constructor: its tensors may hold other data, but are the same objects."""
        averages, values = ([pair[side] for pair in self._floats] for side in (0, 1))
        torch._foreach_lerp_(averages, values, weight=1 - decay)
        for average, value in self._counters:
            average.copy_(value)


def _saved_tensors(model: nn.Module) -> list[torch.Tensor]:
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    return [tensors[name] for name in model.state_dict()]


class _CosineOfParts(Scheduler):  # type: ignore[misc]
    """Cosine decay from the peak to `min_lr` in each part. Unlike timm's cycles, parts may differ in length.

    `bounds` are the first updates of the parts, counted from 1, and the update after the last part.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, bounds: Sequence[int], min_lr: float, length: Length, by_update: bool
    ) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=not by_update)
        self.bounds, self.min_lr = bounds, min_lr
        self.updates_per_step = 1 if by_update else length.updates_per_epoch

    def _get_lr(self, t: int) -> list[float]:
        update = min(t * self.updates_per_step + 1, self.bounds[-1] - 1)
        part = bisect.bisect(self.bounds, update) - 1
        progress = (update - self.bounds[part]) / (self.bounds[part + 1] - self.bounds[part])
        factor = 0.5 * (1 + math.cos(math.pi * progress))
        return [self.min_lr + (peak - self.min_lr) * factor for peak in self.base_values]


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    valid = list_optimizers()
    if recipe.optimizer not in valid:
        raise UserError(
            f"recipe.optimizer={recipe.optimizer}: timm has no such optimizer{did_you_mean(recipe.optimizer, valid)}"
        )
    has_momentum: bool = get_optimizer_info(recipe.optimizer).has_momentum
    if has_momentum != (recipe.momentum is not None):
        advice = "needs one, for example 0.9" if has_momentum else "takes none, set null"
        raise UserError(f"recipe.momentum={recipe.momentum}: recipe.optimizer={recipe.optimizer} {advice}")
    options: dict[str, Any] = {} if recipe.momentum is None else {"momentum": recipe.momentum}
    if _has_fused_kernel(recipe.optimizer):
        options["fused"] = True
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.peak_lr, weight_decay=recipe.weight_decay, **options
    )
    return optimizer


def _has_fused_kernel(name: str) -> bool:
    """Return whether the optimizer can update all weights in one pass.

    torch's adam, adamw and sgd can; timm's optimizers cannot.
    """
    return "fused" in inspect.signature(get_optimizer_info(name).opt_class.__init__).parameters
