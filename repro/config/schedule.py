"""The length of a config's training and its mask schedule, in optimizer updates."""

from __future__ import annotations

from repro.config.run_config import Config
from repro.counting.schedule import GradualSchedule, Length, UpdateSchedule

# The options that define a mask schedule, in iterations of the published training or in fractions of this training.
_ITERATIONS = ("update_interval_iterations", "update_end_iterations")
_FRACTIONS = ("freeze_fraction", "density_ramp_fraction")
SCHEDULE_OPTIONS = (*_ITERATIONS, *_FRACTIONS)


def training_length(config: Config, images_per_epoch: int) -> Length:
    """Return the length of a run on `images_per_epoch` images. The incomplete last batch of an epoch is dropped."""
    recipe = config.effective_recipe
    return Length(max(images_per_epoch // recipe.global_batch, 1), recipe.epochs, recipe.global_batch)


def paper_updates(config: Config) -> float:
    """Return the number of optimizer updates of the backbone's published training, at its own global batch."""
    paper = config.backbone.training
    return paper.epochs * paper.images_per_epoch / paper.global_batch


def updates_per_iteration(config: Config, length: Length) -> float:
    """Return the number of optimizer updates of this training per iteration of the published training.

    This is the ratio of the global batches, so that the number of images is the same. With `scale.stretch_schedule`, it
    is multiplied by the ratio of the lengths of both trainings, in images.
    """
    paper = config.backbone.training
    stretch = 1.0
    if config.scale.stretch_schedule:
        stretch = length.updates * length.global_batch / (paper.epochs * paper.images_per_epoch)
    return paper.global_batch / length.global_batch * stretch


def mask_schedule(config: Config, length: Length) -> UpdateSchedule | None:
    """Return the schedule of mask updates; None if the method has none."""
    options = config.method.weights.options if config.method.weights else {}
    if "freeze_fraction" in options:
        freeze, ramp = options["freeze_fraction"], options["density_ramp_fraction"]
        return GradualSchedule.from_fractions(freeze, ramp, length.updates)
    if "update_interval_iterations" not in options:
        return None
    interval, end = (options[name] for name in _ITERATIONS)
    return UpdateSchedule.scaled(interval, end, updates_per_iteration(config, length), length.updates)
