"""Sections of a config: backbone, data, recipe, scale, tracker and run. Those with logic have files of their own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from repro.counting.geometry import Geometry


class Section(BaseModel):
    """A frozen pydantic model that rejects unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PublishedTraining(Section):
    """The published training of a backbone. One iteration is one update with `global_batch` images."""

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
    beta_max: PositiveFloat | None = None  # Spartan's final sharpness; None if none is published
    global_batch: PositiveInt
    epochs: PositiveInt
    images_per_epoch: PositiveInt


class Backbone(Section):
    """A backbone, with its geometry at each scale."""

    name: str
    timm_name: str
    paper: Geometry  # the published size
    mini: Geometry | None = None  # the same width and depth on small images; None if it is not run at that scale
    local: Geometry
    training: PublishedTraining


GENERATED = ("digits", "shapes", "shapes_video")  # the data sets that need no folder


class Clip(Section):
    """How clips are sampled from a video: frames `frame_step` apart, as many as the model takes.

    Frames of a shorter video are spread evenly over it. In training, the shorter side of the frames is drawn from
    `zoom` times the model's input size before a square is cropped.
    """

    frame_step: PositiveInt
    zoom: tuple[float, float]


class Data(Section):
    """A data set."""

    name: Literal["digits", "cifar10", "cifar100", "imagenet", "imagefolder", "kinetics400", "shapes", "shapes_video"]
    root: str | None
    images_per_epoch: PositiveInt | None  # the expected number of training images; None to count them
    limit_train: PositiveInt | None
    limit_test: PositiveInt | None
    workers: NonNegativeInt
    # How training images are decoded and augmented: as timm does, or with the same random draws in less time
    # (`repro.data.fast_transform`).
    decoder: Literal["pil", "fast"] = "pil"
    # Whether to download the published files if they are missing. Only some data sets have a known address.
    download: bool = Field(default=False, exclude_if=lambda value: not value)
    # The approximate number of training images of a data set that differs between users, for cost estimates.
    images_expected: PositiveInt | None = Field(default=None, exclude=True)
    # The number of test images or videos, for confidence intervals; None if it differs between users.
    test_images: PositiveInt | None = Field(default=None, exclude=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: Clip | None = None  # None for images


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


class Scale(Section):
    """The size at which a row is run."""

    name: Literal["paper", "mini", "local", "smoke"]
    stretch_schedule: bool  # whether mask schedules are scaled to the length of the training
    cpu_threads: NonNegativeInt  # threads of PyTorch in each rank; 0 for PyTorch's default


class Tracker(Section):
    """The tracker that mirrors the record of a run."""

    name: str
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    entity: str | None = None  # a W&B user or team; None for the user's default
    tags: tuple[str, ...] = ()  # in addition to the tags that every run gets
    notes: str | None = None
    upload_weights: bool
    init_timeout_s: float = Field(default=10, gt=0)  # how long the start of a run waits for the server
    finish_timeout_s: float = Field(gt=0)  # how long the end of a run waits for the server


class Run(Section):
    """Options of an execution that cannot change its result, so they are not part of the signature."""

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt
    compile: bool = False  # torch.compile changes only rounding, as another device does
    checkpoint_activations: bool = False  # recomputes activations to save memory; the result is bitwise the same
    # The share of the training after which the weights are saved for runs that start from them
    # (`method.finetune.after`).
    keep_weights_after: float | None = Field(default=None, gt=0, lt=1)
