"""How a run is trained: optimizer, schedule, augmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from repro.config.section import Section


class RecipeChanges(Section):
    """The part of a recipe that a training in stages has its own of; `epochs` are then those of one stage.

    Learning rates are those at `lr_batch`, scaled linearly with the global batch. `optimizer` is a name of timm's;
    `momentum` is SGD's, None for an optimizer without it.
    """

    epochs: PositiveInt
    global_batch: PositiveInt
    micro_batch: PositiveInt
    optimizer: str
    momentum: float | None = Field(ge=0, lt=1)
    lr: float = Field(gt=0)
    lr_batch: PositiveInt
    weight_decay: NonNegativeFloat
    warmup_epochs: NonNegativeFloat
    min_lr: NonNegativeFloat
    mixup: NonNegativeFloat
    cutmix: NonNegativeFloat
    drop_path: float = Field(ge=0, lt=1)
    ema_decay: float | None = Field(gt=0, lt=1)


class Recipe(RecipeChanges):
    """How to train, whole."""

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
        """The learning rate after warm-up, at this recipe's global batch."""
        return self.lr * self.global_batch / self.lr_batch
