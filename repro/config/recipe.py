"""The `recipe` section: optimizer, schedule, augmentation and evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from repro.config.section import Section


class RecipeChanges(Section):
    """The part of a recipe that a staged training replaces; `epochs` are then those of one stage."""

    epochs: PositiveInt
    global_batch: PositiveInt
    micro_batch: PositiveInt
    optimizer: str  # one of timm's names
    momentum: float | None = Field(ge=0, lt=1)  # None for an optimizer without momentum
    lr: float = Field(gt=0)  # at a global batch of `lr_batch`; the learning rate scales linearly with the batch
    lr_batch: PositiveInt
    weight_decay: NonNegativeFloat
    warmup_epochs: NonNegativeFloat
    min_lr: NonNegativeFloat
    mixup: NonNegativeFloat
    cutmix: NonNegativeFloat
    drop_path: float = Field(ge=0, lt=1)
    ema_decay: float | None = Field(gt=0, lt=1)


class Recipe(RecipeChanges):
    """A complete recipe."""

    name: str
    clip_grad_norm: float | None = Field(gt=0)
    warmup_lr: NonNegativeFloat
    schedule_by: Literal["epoch", "update"]
    label_smoothing: float = Field(ge=0, lt=1)
    rand_augment: str | None
    color_jitter: NonNegativeFloat
    interpolation: Literal["bicubic", "bilinear", "random"]
    random_erasing: float = Field(ge=0, le=1)
    mixup_switch_prob: float = Field(ge=0, le=1)
    repeated_augmentation: PositiveInt
    amp: Literal["none", "bfloat16"]
    eval_crop_pct: float = Field(gt=0, le=1)
    eval_batch: PositiveInt
    evaluate_every_epochs: PositiveInt

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, at the global batch of this recipe."""
        return self.lr * self.global_batch / self.lr_batch
