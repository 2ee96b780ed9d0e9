"""What single fields of a config cannot know: values that are right alone and wrong together."""

from __future__ import annotations

from repro.config import Config, SlurmLauncher
from repro.errors import UserError
from repro.measure.layers import whole
from repro.schedule import GradualSchedule, Length, mask_schedule, training_length
from repro.sparsity.budgets import NEURON, budget


def cross_checks(config: Config) -> list[str]:
    """One message for each pair of fields that do not go together; each names the key to change."""
    errors = []
    model, recipe = config.model, config.own_recipe
    method = config.method
    if method.weights is None and method.sparsity:
        errors.append(f"method.sparsity={method.sparsity:g}: method={method.name} leaves weights as they are; set 0")
    if method.tokens is None and method.data_sparsity:
        errors.append(f"method.data_sparsity={method.data_sparsity:g}: method={method.name} keeps all tokens; set 0")
    if method.weights is not None and method.weights.heads_density is not None and not model.units:
        errors.append(f"method={method.name}: removes heads and neurons, backbone={config.backbone.name} has none")
    if method.tokens is not None and not model.tokens:
        errors.append(f"method={method.name}: selects tokens, backbone={config.backbone.name} has none")
    elif method.tokens is not None and method.tokens.needs_joint_attention and not model.has_joint_attention:
        errors.append(
            f"method={method.name}: takes each block for one attention of all tokens, which those of "
            f"backbone={config.backbone.name} are not"
        )
    errors += model.faults()
    if config.run.checkpoint_activations and not model.token_blocks:
        errors.append(
            f"run.checkpoint_activations=true: backbone={config.backbone.name} has no transformer blocks; set it false"
        )
    missing = [
        f"method.weights.{key}: backbone={config.backbone.name} has none published; set one"
        for key, value in (method.weights.options if method.weights is not None else {}).items()
        if value is None
    ]
    if missing:
        return [*errors, *missing]
    if recipe.global_batch % min(recipe.micro_batch, recipe.global_batch):
        errors.append(
            f"recipe.micro_batch={recipe.micro_batch}: does not divide recipe.global_batch={recipe.global_batch}"
        )
    if recipe.min_lr > recipe.peak_lr:
        errors.append(f"recipe.min_lr={recipe.min_lr}: above the peak learning rate {recipe.peak_lr:g}")
    if recipe.warmup_epochs >= recipe.epochs:
        errors.append(f"recipe.warmup_epochs={recipe.warmup_epochs}: not below recipe.epochs={recipe.epochs}")
    if config.restarts and recipe.warmup_epochs:
        errors.append("method.finetune.restarts: the learning rate begins anew without warm-up; set warmup_epochs=0")
    launcher = config.launcher
    if isinstance(launcher, SlurmLauncher) and launcher.signal_lead_s >= 60 * launcher.time_min:
        errors.append(
            f"launcher.signal_lead_s={launcher.signal_lead_s}: not below launcher.time_min={launcher.time_min} minutes"
        )
    errors += _budget_errors(config)
    if config.data.images_per_epoch:
        errors += schedule_errors(
            config, training_length(config, config.data.limit_train or config.data.images_per_epoch)
        )
    weights = method.weights
    heads = model.units.get("heads", 0)
    if weights is not None and weights.heads_density is not None and heads * weights.heads_density < 1 - 1e-9:
        errors.append(f"method.weights.heads_density={weights.heads_density:g}: leaves none of {heads} heads")
    mixing = recipe.mixup > 0 or recipe.cutmix > 0
    if mixing and min(recipe.micro_batch, recipe.global_batch) % 2:
        errors.append(f"recipe.micro_batch={recipe.micro_batch}: mixing takes images in pairs; make it even")
    return errors


def _budget_errors(config: Config) -> list[str]:
    """What is wrong with a target that is the whole model's: on the geometry that is trained, and the published one."""
    weights = config.method.weights
    if weights is None or weights.block is None or weights.cost is None or weights.distribution is None:
        return []
    if weights.block == NEURON and not config.model.units:
        return [f"method.weights.block={NEURON}: masks heads and neurons, backbone={config.backbone.name} has none"]
    for geometry in (config.model, config.backbone.paper):
        try:
            budget(
                whole(geometry),
                1 - config.method.sparsity,
                distribution=weights.distribution,
                cost=weights.cost,
                block=weights.block,
            )
        except UserError as error:
            return [str(error)]
    return []


def schedule_errors(config: Config, length: Length) -> list[str]:
    """What is wrong with the mask schedule for a training of this length: known at once, or when the data are read."""
    schedule = mask_schedule(config, length)
    if schedule is None:
        return []
    if isinstance(schedule, GradualSchedule):
        if schedule.ramp_end > schedule.last:
            return [
                f"method.weights.density_ramp_fraction: the target is reached after update {schedule.ramp_end}, but "
                f"masks freeze after {schedule.last}; lower it, or raise method.weights.freeze_fraction"
            ]
        return []
    if schedule.end > schedule.total:
        return [
            f"method.weights.update_end_iterations: masks would change until update {schedule.end}, the training has "
            f"{schedule.total} (raise recipe.epochs or lower it)"
        ]
    if schedule.count == 0 and schedule.end > 1:
        return [
            f"method.weights.update_interval_iterations: masks would never change: every {schedule.interval} updates, "
            f"before update {schedule.end} of {schedule.total} (lower it; for masks that stay, update_end_iterations=0)"
        ]
    return []
