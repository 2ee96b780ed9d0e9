"""The typed config of one run: complete, resolved, immutable, with a signature. `repro.composition` makes one."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from repro.geometry import Geometry

# A word for `method.starts_from`: the published weights that timm has, instead of those of a run.
PRETRAINED = "pretrained"

# Keys that cannot change a result. Everything else is part of the signature.
NOT_IN_SIGNATURE = (
    "run",
    "launcher",
    "tracker",
    "data.root",
    "data.workers",
    "backbone.paper",  # `model` says which geometry is trained
    "backbone.local",
    "backbone.training.beta_max",  # `method.weights` says which one is used
)
# Keys that are younger than some records. With these values a run does what was done before there were the keys, and
# has the signature that it had.
AS_BEFORE = {"data.decoder": "pil"}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedTraining(_Section):
    """The published training of a backbone: iterations are counted at `global_batch`.

    `beta_max` is Spartan's largest sharpness; None where nobody published one for this backbone.
    """

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
    beta_max: PositiveFloat | None = None
    global_batch: PositiveInt
    epochs: PositiveInt
    images_per_epoch: PositiveInt


class Backbone(_Section):
    """A backbone at paper size and at local size."""

    name: str
    timm_name: str
    paper: Geometry
    local: Geometry
    training: PublishedTraining


class Part(BaseModel):
    """How weights become sparse or tokens are dropped: a class and its options.

    The fields named here say what is left at the end, in terms that every method shares, so that a row can be counted
    without training it. All others are the method's own, declared in its file of conf/method.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    target: str | None = None
    distribution: Literal["erk", "uniform", "global"] | None = None
    heads_density: float | None = Field(default=None, gt=0, le=1)
    neurons_density: float | None = Field(default=None, gt=0, le=1)
    kept: PositiveInt | None = None
    of: PositiveInt | None = None
    # What the method asks of a backbone is no part of a run: checked when a config is composed, and not written.
    needs_joint_attention: bool = Field(default=False, exclude=True)

    @property
    def block(self) -> str | None:
        """What is masked as one, for a method whose target is that of the whole model; None for others."""
        return self.options.get("block")

    @property
    def cost(self) -> str | None:
        """What such a method's target counts: params or macs."""
        return self.options.get("cost")

    @property
    def keep_rates(self) -> tuple[float, ...]:
        """The share of patches that a plan takes to be left after each stage of token dropping; empty without stages.

        What is left in truth, a run measures.
        """
        return tuple(self.options.get("keep_rates") or ())

    @property
    def keep_spread(self) -> float:
        """How far images are taken to differ from `keep_rates`, as a share of them."""
        return float(self.options.get("keep_spread", 0.0))

    @property
    def scorer(self) -> str:
        """What scores a token: `linear` (one output), `query_key` (the class token asks) or `none`."""
        return str(self.options.get("scorer", "linear"))

    @property
    def has_own_scorer(self) -> bool:
        """Whether the scorer's weights are its own, not those of a block."""
        return bool(self.options.get("own_scorer", True)) and self.scorer != "none"

    @property
    def rank(self) -> int | None:
        """How many mixtures of `of` tokens attention has for keys; None where it has the tokens."""
        return self.options.get("rank")

    @property
    def takes_budget(self) -> bool:
        """Whether its keep rates are those that the run measured which its own begins with."""
        return self.options.get("budget") == "record"

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options."""
        return dict(self.model_extra or {})


class Finetune(_Section):
    """How a method that begins with trained weights goes on: its epochs and learning rate as shares of the recipe's.

    The recipe itself stays that of the run it begins with, so that a change of it changes both.
    """

    epochs_fraction: float = Field(gt=0, le=1)
    lr_factor: float = Field(gt=0)


class RecipeChanges(_Section):
    """What a training in stages does not have from the recipe; `epochs` are those of one stage."""

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


class StagedFinetune(_Section):
    """How a method goes on from trained weights in stages, the learning rate beginning anew with each.

    `restarts` are shares of a stage at which it does so too.
    `changes` is absolute, where `Finetune` scales: the published trainings of this kind have recipes of their own.
    """

    stages: PositiveInt
    # Where there is none the key is not there: runs are what they were before it was.
    restarts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(), exclude_if=lambda shares: not shares)
    changes: RecipeChanges


class Method(_Section):
    """A method: its nominal sparsities as fractions, its parts, and the method whose finished run it starts from."""

    name: str
    sparsity: float = Field(ge=0, lt=1)
    data_sparsity: float = Field(ge=0, lt=1)
    starts_from: str | None = None
    finetune: Finetune | StagedFinetune | None = None
    weights: Part | None
    tokens: Part | None

    @property
    def is_trainable(self) -> bool:
        """Whether every part of the method has code behind it."""
        return all(part.target for part in (self.weights, self.tokens) if part is not None)


class Clip(_Section):
    """What is taken of a video: frames `frame_step` apart, as many as the model has.

    Where the video is shorter, they are spread evenly over it. In training, squares of the model's size come from
    frames whose shorter side is drawn from `zoom` times it.
    """

    frame_step: PositiveInt
    zoom: tuple[float, float]


class Data(_Section):
    """A data set. `images_per_epoch` is what it should hold; null means: count. `clip` is null for images.

    `decoder` makes the training views of image files: `pil` as timm does, `fast` the same views in less time.
    """

    name: Literal["digits", "imagenet", "imagefolder", "kinetics400", "shapes", "shapes_video"]
    root: str | None
    images_per_epoch: PositiveInt | None
    limit_train: PositiveInt | None
    limit_test: PositiveInt | None
    workers: NonNegativeInt
    decoder: Literal["pil", "fast"] = "pil"
    # About how many there are where everybody has another number: for what a plan says of cost, and no part of a run.
    images_expected: PositiveInt | None = Field(default=None, exclude=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: Clip | None = None


class Recipe(_Section):
    """How to train. Learning rates at `lr_batch`, scaled linearly with the global batch.

    `optimizer` is a name of timm's; `momentum` is SGD's, None for an optimizer without it.
    """

    name: str
    epochs: PositiveInt
    global_batch: PositiveInt
    micro_batch: PositiveInt
    optimizer: str
    momentum: float | None = Field(ge=0, lt=1)
    lr: float = Field(gt=0)
    lr_batch: PositiveInt
    weight_decay: NonNegativeFloat
    clip_grad_norm: float | None = Field(gt=0)
    warmup_epochs: NonNegativeFloat
    warmup_lr: NonNegativeFloat
    min_lr: NonNegativeFloat
    schedule_by: Literal["epoch", "update"]
    label_smoothing: float = Field(ge=0, lt=1)
    rand_augment: str | None
    color_jitter: NonNegativeFloat
    interpolation: Literal["bicubic", "bilinear", "random"]
    random_erasing: float = Field(ge=0, le=1)
    mixup: NonNegativeFloat
    cutmix: NonNegativeFloat
    mixup_switch_prob: float = Field(ge=0, le=1)
    repeated_augmentation: PositiveInt
    drop_path: float = Field(ge=0, lt=1)
    ema_decay: float | None = Field(gt=0, lt=1)
    amp: Literal["none", "bfloat16"]
    eval_crop_pct: float = Field(gt=0, le=1)
    eval_batch: PositiveInt
    evaluate_every_epochs: PositiveInt

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, at this recipe's global batch."""
        return self.lr * self.global_batch / self.lr_batch


class Scale(_Section):
    """How large a row is run."""

    name: Literal["paper", "local", "smoke"]
    stretch_schedule: bool
    cpu_threads: NonNegativeInt


class InlineLauncher(_Section):
    """Processes of this one; `parallel` runs at once."""

    name: Literal["inline"]
    parallel: PositiveInt | Literal["auto"]

    @property
    def wants_gpus(self) -> bool:
        """It asks for nothing: a run takes what it finds."""
        return False

    @property
    def runs_here(self) -> bool:
        """Whether runs are processes of this machine."""
        return True


class LocalLauncher(_Section):
    """submitit's local executor: jobs on this machine, each with a log of its own, of one or more ranks."""

    name: Literal["local"]
    parallel: PositiveInt | Literal["auto"]
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt
    setup: tuple[str, ...]

    @property
    def wants_gpus(self) -> bool:
        """Whether a run is to have GPUs."""
        return self.gpus_per_node > 0

    @property
    def runs_here(self) -> bool:
        """Whether runs are processes of this machine."""
        return True


class SlurmLauncher(_Section):
    """What a run asks of Slurm. `parallel` caps how many tasks of an array run at once; null leaves a key to the site.

    `time_min` in minutes, `mem_gb` per node, `signal_lead_s` the seconds before the time limit at which a job is told.
    """

    name: Literal["slurm"]
    parallel: PositiveInt
    account: str | None
    partition: str | None
    qos: str | None
    gres: str | None
    constraint: str | None
    reservation: str | None
    exclude: str | None
    time_min: PositiveInt
    nodes: PositiveInt
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt | None
    cpus_per_task: PositiveInt
    mem_gb: PositiveFloat | None
    signal_lead_s: PositiveInt
    requeue: bool
    max_requeues: NonNegativeInt
    array_size: PositiveInt | None
    setup: tuple[str, ...]
    container: tuple[str, ...]
    srun_args: tuple[str, ...]
    extra: dict[str, str | int | bool]

    @property
    def wants_gpus(self) -> bool:
        """Whether a run is to have GPUs, in whichever of sbatch's words."""
        words = [f"{key}={value}" for key, value in {"gres": self.gres or "", **self.extra}.items()]
        return bool(self.gpus_per_node) or any("gpu" in word for word in words)

    @property
    def runs_here(self) -> bool:
        """A login node is not the device that runs."""
        return False

    @property
    def ranks(self) -> int:
        """Processes of one run."""
        return self.nodes * self.tasks_per_node


Launcher = InlineLauncher | LocalLauncher | SlurmLauncher


class Tracker(_Section):
    """The mirror of the record."""

    name: str
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    upload_weights: bool
    finish_timeout_s: float = Field(gt=0)


class Run(_Section):
    """What cannot change a result: places, devices, cadences, and how the same numbers are computed.

    `compile` lets torch compile the model, whose sums are then rounded in another order, as another device would;
    `checkpoint_activations` trades time for memory and changes no bit.
    """

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt
    compile: bool = False
    checkpoint_activations: bool = False


class Config(_Section):
    """One run, completely."""

    seed: NonNegativeInt
    backbone: Backbone
    model: Geometry
    method: Method
    data: Data
    recipe: Recipe
    scale: Scale
    launcher: Annotated[Launcher, Field(discriminator="name")]
    tracker: Tracker
    run: Run

    @property
    def own_recipe(self) -> Recipe:
        """The recipe as this run trains with it: `recipe`, shortened where the method fine-tunes.

        Warm-up keeps its share of the training; the learning rate ends where the recipe's does.
        """
        finetune = self.method.finetune
        if finetune is None:
            return self.recipe
        if isinstance(finetune, StagedFinetune):
            changes = finetune.changes
            return self.recipe.model_copy(update={**changes.model_dump(), "epochs": finetune.stages * changes.epochs})
        epochs = max(1, round(self.recipe.epochs * finetune.epochs_fraction))
        return self.recipe.model_copy(
            update={
                "epochs": epochs,
                "warmup_epochs": self.recipe.warmup_epochs * epochs / self.recipe.epochs,
                "lr": self.recipe.lr * finetune.lr_factor,
            }
        )

    @property
    def stages(self) -> int:
        """How many equal parts the training has, the learning rate beginning anew with each."""
        return self.method.finetune.stages if isinstance(self.method.finetune, StagedFinetune) else 1

    @property
    def restarts(self) -> tuple[float, ...]:
        """At which shares of each stage the learning rate begins anew, beside its start."""
        return self.method.finetune.restarts if isinstance(self.method.finetune, StagedFinetune) else ()

    @property
    def signature(self) -> str:
        """sha256, in hex, of everything that can change a result."""
        return signature(self.model_dump(mode="json"))


def signature(resolved: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a resolved config, less `NOT_IN_SIGNATURE` and what is `AS_BEFORE`.

    Raises `TypeError` or `ValueError` for a value that JSON cannot hold exactly (an object, NaN, infinity).
    """
    return _hash(_kept(resolved))


def signatures(config: Config, seeds: Iterable[int]) -> dict[int, str]:
    """The signature of a config with each of these seeds."""
    kept = _kept(config.model_dump(mode="json"))
    return {seed: _hash({**kept, "seed": seed}) for seed in seeds}


def _kept(resolved: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(json.dumps(resolved, allow_nan=False))
    for key in NOT_IN_SIGNATURE:
        *sections, last = key.split(".")
        functools.reduce(lambda node, name: node[name], sections, kept).pop(last, None)
    for key, before in AS_BEFORE.items():
        *sections, last = key.split(".")
        section = functools.reduce(lambda node, name: node[name], sections, kept)
        if section.get(last) == before:
            del section[last]
    return kept


def _hash(kept: Mapping[str, Any]) -> str:
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
