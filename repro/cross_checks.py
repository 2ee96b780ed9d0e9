"""What single fields of a config cannot know: values that are right alone and wrong together."""

from __future__ import annotations

from repro.config import Config, Geometry, SlurmLauncher
from repro.schedule import GradualSchedule, mask_schedule, training_length


def cross_checks(config: Config) -> list[str]:
    """One message for each pair of fields that do not go together; each names the key to change."""
    errors = []
    model, recipe = config.model, config.own_recipe
    method = config.method
    if method.weights is None and method.sparsity:
        errors.append(f"method.sparsity={method.sparsity:g}: method={method.name} leaves weights as they are; set 0")
    if method.tokens is None and method.data_sparsity:
        errors.append(f"method.data_sparsity={method.data_sparsity:g}: method={method.name} keeps all tokens; set 0")
    if isinstance(model, Geometry):
        if model.embed_dim % model.num_heads:
            errors.append(f"model.num_heads={model.num_heads}: does not divide model.embed_dim={model.embed_dim}")
        if model.image_size % model.patch_size:
            errors.append(f"model.patch_size={model.patch_size}: does not divide model.image_size={model.image_size}")
    elif method.tokens is not None or (method.weights is not None and method.weights.heads_density is not None):
        errors.append(f"method={method.name}: needs a vision transformer; backbone={config.backbone.name} is none")
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
    launcher = config.launcher
    if isinstance(launcher, SlurmLauncher) and launcher.signal_lead_s >= 60 * launcher.time_min:
        errors.append(
            f"launcher.signal_lead_s={launcher.signal_lead_s}: not below launcher.time_min={launcher.time_min} minutes"
        )
    if config.data.images_per_epoch:
        length = training_length(config, config.data.limit_train or config.data.images_per_epoch)
        schedule = mask_schedule(config, length)
        is_gradual = isinstance(schedule, GradualSchedule)
        if schedule is not None and not is_gradual and schedule.end > schedule.total:
            errors.append(
                f"method.weights.update_end_iterations: masks would change until update {schedule.end}, the training "
                f"has {schedule.total} (raise recipe.epochs or lower it)"
            )
        if isinstance(schedule, GradualSchedule) and schedule.ramp_end > schedule.last:
            errors.append(
                f"method.weights.density_ramp_fraction: the target is reached after update {schedule.ramp_end}, but masks "
                f"freeze after {schedule.last}; lower it, or raise method.weights.freeze_fraction"
            )
    mixing = recipe.mixup > 0 or recipe.cutmix > 0
    if mixing and min(recipe.micro_batch, recipe.global_batch) % 2:
        errors.append(f"recipe.micro_batch={recipe.micro_batch}: mixing takes images in pairs; make it even")
    return errors
