"""The typed config of one run: composed by Hydra, checked here, all errors in one message.

`compose` is the only way to a `Config`. What a row says and what the user overrides go in as Hydra overrides; what
comes out is complete, resolved, immutable and has a signature.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from repro import method_options
from repro.errors import UserError, did_you_mean

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"

# Keys that cannot change a result. Everything else is part of the signature.
NOT_IN_SIGNATURE = (
    "run",
    "launcher",
    "tracker",
    "data.root",
    "data.workers",
    "backbone.paper",  # `model` says which geometry is trained
    "backbone.local",
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Geometry(_Section):
    """The shape of a vision transformer. `image_size` and `patch_size` in pixels."""

    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    mlp_ratio: int = Field(gt=0)
    patch_size: PositiveInt
    image_size: PositiveInt
    in_chans: PositiveInt
    num_classes: PositiveInt
    weight_init: Literal["", "jax", "moco"] = ""

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image, the class token among them."""
        return self.patches + 1


class PublishedTraining(_Section):
    """The published training of a backbone: iterations are counted at `global_batch`."""

    update_interval_iterations: PositiveInt
    update_end_iterations: PositiveInt
    update_fraction: float = Field(gt=0, le=1)
    decay: Literal["cosine"]
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


class Method(_Section):
    """A method: its nominal sparsities as fractions, its parts, and the method whose finished run it starts from."""

    name: str
    sparsity: float = Field(ge=0, lt=1)
    data_sparsity: float = Field(ge=0, lt=1)
    starts_from: str | None = None
    finetune: Finetune | None = None
    weights: Part | None
    tokens: Part | None

    @property
    def is_trainable(self) -> bool:
        """Whether every part of the method has code behind it."""
        return all(part.target for part in (self.weights, self.tokens) if part is not None)


class Data(_Section):
    """A data set. `images_per_epoch` is what it should hold; null means: count."""

    name: Literal["digits", "imagenet", "imagefolder"]
    root: str | None
    images_per_epoch: PositiveInt | None
    limit_train: PositiveInt | None
    limit_test: PositiveInt | None
    workers: NonNegativeInt
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Recipe(_Section):
    """How to train. Learning rates at `lr_batch`, scaled linearly with the global batch."""

    name: str
    epochs: PositiveInt
    global_batch: PositiveInt
    micro_batch: PositiveInt
    optimizer: str
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


class LocalLauncher(_Section):
    """submitit's local executor: jobs on this machine, each with a log of its own, of one or more ranks."""

    name: Literal["local"]
    parallel: PositiveInt | Literal["auto"]
    tasks_per_node: PositiveInt
    gpus_per_node: NonNegativeInt
    setup: tuple[str, ...]


class SlurmLauncher(_Section):
    """What a run asks of Slurm. `parallel` caps how many tasks of an array run at once; null leaves a key to the site.

    `time_min` in minutes, `mem_gb` per node, `signal_lead_s` the seconds before the end at which a job is told.
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
    """What cannot change a result: places, devices, cadences."""

    root: str
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    checkpoint_every_s: float = Field(gt=0)
    log_every_updates: PositiveInt


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
        epochs = max(1, round(self.recipe.epochs * finetune.epochs_fraction))
        return self.recipe.model_copy(
            update={
                "epochs": epochs,
                "warmup_epochs": self.recipe.warmup_epochs * epochs / self.recipe.epochs,
                "lr": self.recipe.lr * finetune.lr_factor,
            }
        )

    @property
    def signature(self) -> str:
        """sha256, in hex, of everything that can change a result."""
        return signature(self.model_dump(mode="json"))


def signature(resolved: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a resolved config, less `NOT_IN_SIGNATURE`.

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
    return kept


def _hash(kept: Mapping[str, Any]) -> str:
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def compose(overrides: Iterable[str] = ()) -> Config:
    """The config of one run from Hydra overrides (`backbone=deit_small`, `method.sparsity=0.5`).

    Raises `UserError` that lists every wrong group, key and value at once, each with the nearest valid names.
    """
    errors: list[str] = []
    choices: dict[str, str] = {}
    values: dict[str, Any] = {}
    for text in overrides:
        parsed = _parse(text, errors)
        if parsed is None:
            continue
        key = parsed.key_or_group
        options = groups().get(key)
        if options is None:
            values[key] = parsed.value()
        elif parsed.value() in options:
            choices[key] = str(parsed.value())
        else:
            errors.append(f"{text}: no {key} {parsed.value()!r}{did_you_mean(str(parsed.value()), options)}")
    composed = _compose_groups(choices)
    errors += _apply(composed, values)
    return _validate(composed, errors)


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """The config groups and what each offers."""
    return {
        folder.name: tuple(sorted(path.stem for path in folder.glob("*.yaml")))
        for folder in sorted(CONF_DIR.iterdir())
        if folder.is_dir()
    }


def _parse(text: str, errors: list[str]) -> Override | None:
    try:
        parsed = _parse_cached(text)
    except HydraException:
        errors.append(f"{text}: not an override; write key=value")
        return None
    if parsed.is_delete() or parsed.is_sweep_override():
        errors.append(f"{text}: a single run takes plain key=value (sweeps: repro train -m)")
        return None
    return parsed


@functools.lru_cache(maxsize=4096)  # most overrides of a table are those of its other rows
def _parse_cached(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _compose_groups(choices: Mapping[str, str]) -> DictConfig:
    """What Hydra composes from these choices; plain ones are put in afterwards: 50 times quicker."""
    plain = {group: option for group, option in choices.items() if _is_plain(group, option)}
    others = tuple(sorted(item for item in choices.items() if item[0] not in plain))
    composed = OmegaConf.create(_compose_with_hydra(others))
    for group, option in plain.items():
        composed[group] = _load_option(group, option)
    return composed


@functools.lru_cache(maxsize=256)
def _compose_with_hydra(choices: tuple[tuple[str, str], ...]) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = hydra_compose("config", [f"{group}={option}" for group, option in choices])
    OmegaConf.set_struct(composed, False)
    return composed


@functools.cache
def _load_option(group: str, option: str) -> Any:
    return OmegaConf.load(CONF_DIR / group / f"{option}.yaml")


@functools.cache
def _is_plain(group: str, option: str) -> bool:
    """Whether choosing this option is the same as putting its file in its group's place.

    That is so where the file has no defaults list and no package of its own, and no other file says anything about the
    group.
    """
    text = (CONF_DIR / group / f"{option}.yaml").read_text(encoding="utf-8")
    return group not in _groups_set_elsewhere() and not re.search(r"^# *@package|^defaults:", text, re.MULTILINE)


@functools.cache
def _groups_set_elsewhere() -> frozenset[str]:
    found: set[str] = set()
    for path in [CONF_DIR / "config.yaml", *CONF_DIR.glob("*/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"override /(\w+)", text))
        if path.parent == CONF_DIR or re.search(r"^# *@package", text, re.MULTILINE):
            found |= set(re.findall(r"^(\w+):", text, re.MULTILINE))
    return frozenset(found)


def _apply(composed: DictConfig, values: Mapping[str, Any]) -> list[str]:
    errors = []
    model_keys = [f"model.{name}" for name in composed.backbone.local]
    known = {*model_keys, *(key for key, _ in _leaves(OmegaConf.to_container(composed)))}
    for key, value in values.items():
        if key not in known:
            errors.append(f"{key}: no such key{did_you_mean(key, known)}")
        elif key not in model_keys:
            OmegaConf.update(composed, key, value, merge=False)
    # The model starts as a copy of one of the backbone's geometries, which may have been overridden themselves.
    composed.model = OmegaConf.to_container(composed.model, resolve=True)
    for key in model_keys:
        if key in values:
            OmegaConf.update(composed, key, values[key], merge=False)
    return errors


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict) or not node:
        yield prefix, node
        return
    for key, child in node.items():
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _validate(composed: DictConfig, errors: list[str]) -> Config:
    for key, value in _leaves(OmegaConf.to_container(composed)):
        if value == MISSING:
            errors.append(f"{key}: needs a value ({key}=...)")
            OmegaConf.update(composed, key, None)
    try:
        resolved: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(_message([*errors, str(error).splitlines()[0]])) from None
    errors += method_options.settle(resolved["method"])
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        errors += [f"{_key(item['loc'])}={item['input']!r}: {item['msg'].lower()}" for item in error.errors()]
        raise UserError(_message(errors)) from None
    errors += _cross_checks(config)
    if errors:
        raise UserError(_message(errors))
    return config


def _key(place: tuple[int | str, ...]) -> str:
    """The key as it is written in an override: pydantic puts the launcher's name into the path of its fields."""
    parts = [str(part) for part in place]
    if parts[0] == "launcher" and len(parts) > 2:
        del parts[1]
    return ".".join(parts)


def _cross_checks(config: Config) -> list[str]:
    """What single fields cannot know."""
    from repro.schedule import mask_schedule, training_length

    errors = []
    model, recipe = config.model, config.own_recipe
    method = config.method
    if method.weights is None and method.sparsity:
        errors.append(f"method.sparsity={method.sparsity:g}: method={method.name} leaves weights as they are; set 0")
    if method.tokens is None and method.data_sparsity:
        errors.append(f"method.data_sparsity={method.data_sparsity:g}: method={method.name} keeps all tokens; set 0")
    if model.embed_dim % model.num_heads:
        errors.append(f"model.num_heads={model.num_heads}: does not divide model.embed_dim={model.embed_dim}")
    if model.image_size % model.patch_size:
        errors.append(f"model.patch_size={model.patch_size}: does not divide model.image_size={model.image_size}")
    if recipe.global_batch % min(recipe.micro_batch, recipe.global_batch):
        errors.append(
            f"recipe.micro_batch={recipe.micro_batch}: does not divide recipe.global_batch={recipe.global_batch}"
        )
    if recipe.min_lr > recipe.peak_lr:
        errors.append(f"recipe.min_lr={recipe.min_lr}: above the peak learning rate {recipe.peak_lr:g}")
    if recipe.warmup_epochs >= recipe.epochs:
        errors.append(f"recipe.warmup_epochs={recipe.warmup_epochs}: not below recipe.epochs={recipe.epochs}")
    launcher = config.launcher
    if isinstance(launcher, SlurmLauncher) and launcher.signal_lead_s >= 60 * launcher.time_min:
        errors.append(
            f"launcher.signal_lead_s={launcher.signal_lead_s}: not below launcher.time_min={launcher.time_min} minutes"
        )
    if config.data.images_per_epoch:
        length = training_length(config, config.data.limit_train or config.data.images_per_epoch)
        schedule = mask_schedule(config, length)
        if schedule is not None and schedule.end > schedule.total:
            errors.append(
                f"method.weights.update_end_iterations: masks would change until update {schedule.end}, the training "
                f"has {schedule.total} (raise recipe.epochs or lower it)"
            )
    mixing = recipe.mixup > 0 or recipe.cutmix > 0
    if mixing and min(recipe.micro_batch, recipe.global_batch) % 2:
        errors.append(f"recipe.micro_batch={recipe.micro_batch}: mixing takes images in pairs; make it even")
    return errors


def _message(errors: list[str]) -> str:
    if len(errors) == 1:
        return f"config: {errors[0]}"
    return f"config: {len(errors)} errors\n" + "\n".join(f"  {error}" for error in errors)
