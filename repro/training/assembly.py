"""Builds everything that training needs, from a config and the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from repro.config import Config
from repro.config.checks import schedule_errors
from repro.config.schedule import training_length, updates_per_iteration
from repro.counting.schedule import Length
from repro.data.loader import TrainLoader
from repro.data.splits import Images
from repro.distributed import World
from repro.errors import UserError
from repro.methods.build import build_parts
from repro.models.backbone import build_model
from repro.seeding import stream_seed
from repro.training.recipe import build_optimization
from repro.training.state import TrainingState
from repro.training.step import Step


@dataclass(frozen=True)
class Assembly:
    """The loader, length, state and update step of a run."""

    loader: TrainLoader
    length: Length
    state: TrainingState
    step: Step


def assemble(
    config: Config,
    images: Images,
    world: World,
    weights: dict[str, Tensor] | None = None,
    keep_rates: Sequence[float] | None = None,
) -> Assembly:
    """Build the loader, state and step of a run before its first update.

    Args:
        images: the training images.
        weights: initial weights; required if and only if the method has `starts_from`.
        keep_rates: token keep rates measured by another run, for a method that uses them.

    Raises `UserError` if masks would change after the end of training, if `weights` are missing or unexpected, or if
    the recipe, the method or the step rejects the config.
    """
    recipe = config.effective_recipe
    loader = TrainLoader(
        images,
        global_batch=recipe.global_batch,
        micro_batch=recipe.micro_batch,
        seed=config.seed,
        repeats=recipe.repeated_augmentation,
        workers=config.data.workers,
        rank=world.rank,
        world=world.size,
        device=world.device,
    )
    length = training_length(config, len(images))
    if errors := schedule_errors(config, length):
        raise UserError("; ".join(errors))
    state = _build_state(config, length, world, weights, keep_rates)
    step = Step(
        state,
        world,
        amp=recipe.amp,
        clip_grad_norm=recipe.clip_grad_norm,
        accumulate=loader.accumulate,
        seed=config.seed,
        compiled=config.run.compile,
        checkpointing=config.run.checkpoint_activations,
    )
    return Assembly(loader, length, state, step)


def _build_state(
    config: Config,
    length: Length,
    world: World,
    weights: dict[str, Tensor] | None,
    keep_rates: Sequence[float] | None,
) -> TrainingState:
    recipe = config.effective_recipe
    model = build_model(config.model, recipe.drop_path, stream_seed("model", config.seed)).to(world.device)
    if (weights is None) != (config.method.starts_from is None):
        raise UserError(
            f"method={config.method.name} starts from the weights of {config.method.starts_from or 'no other run'}"
        )
    if weights is not None:
        model.load_state_dict(weights)
    # Masks are created on the device of their weights, so the model is moved first. Modules that parts add are moved
    # afterwards.
    parts = build_parts(config, model, length, keep_rates)
    model = model.to(world.device)
    for part in parts:
        part.constrain(model)
    optimization = build_optimization(
        model,
        recipe,
        config.model.num_classes,
        length,
        updates_per_iteration(config, length),
        config.stages,
        config.restarts,
    )
    for part in parts:
        part.start(optimization.optimizer)
    return TrainingState(model, optimization, parts)
