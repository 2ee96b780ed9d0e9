"""Checks across fields of a config: values that are valid by themselves but not together."""

from __future__ import annotations

from repro.config.costs import cost_models
from repro.config.launcher import SlurmLauncher
from repro.config.run_config import Config
from repro.config.schedule import mask_schedule, training_length
from repro.counting.schedule import Length


def cross_checks(config: Config) -> list[str]:
    """Return one message for each conflict. Each names the key to change."""
    errors = [*_method_errors(config), *config.model.errors()]
    if config.run.checkpoint_activations and not config.model.token_blocks:
        errors.append(
            f"run.checkpoint_activations=true: backbone={config.backbone.name} has no transformer blocks; set it to "
            "false"
        )
    weights = config.method.weights
    missing = [
        f"method.weights.{key}: no published value for backbone={config.backbone.name}; set method.weights.{key}="
        for key, value in (weights.options if weights is not None else {}).items()
        if value is None
    ]
    if missing:  # the checks below need these values
        return [*errors, *missing]
    errors += _recipe_errors(config)
    slurm = config.launcher
    if isinstance(slurm, SlurmLauncher) and slurm.signal_lead_s >= 60 * slurm.time_min:
        lead = f"launcher.signal_lead_s={slurm.signal_lead_s}"
        errors.append(f"{lead}: must be below launcher.time_min={slurm.time_min} minutes")
    for cost_model in cost_models(config.method):
        errors += cost_model.errors(config.model, config.backbone.paper, config.method.name, config.backbone.name)
    if config.data.images_per_epoch:
        images = config.data.limit_train or config.data.images_per_epoch
        errors += schedule_errors(config, training_length(config, images))
    return errors


def schedule_errors(config: Config, length: Length) -> list[str]:
    """Return the conflicts between the mask schedule and the training's length, which the data may determine."""
    schedule = mask_schedule(config, length)
    return [] if schedule is None else schedule.errors()


def _method_errors(config: Config) -> list[str]:
    method, model, backbone = config.method, config.model, config.backbone.name
    errors = []
    if method.weights is None and method.sparsity:
        errors.append(f"method.sparsity={method.sparsity:g}: method={method.name} keeps all weights; set it to 0")
    if method.tokens is None:
        if method.data_sparsity:
            errors.append(
                f"method.data_sparsity={method.data_sparsity:g}: method={method.name} keeps all tokens; set it to 0"
            )
    elif not model.tokens:
        errors.append(f"method={method.name}: selects tokens, but backbone={backbone} has none")
    elif method.tokens.needs_joint_attention and not model.has_joint_attention:
        errors.append(
            f"method={method.name}: needs blocks that attend once over all tokens, unlike those of backbone={backbone}"
        )
    return errors


def _recipe_errors(config: Config) -> list[str]:
    recipe = config.effective_recipe
    micro_batch = min(recipe.micro_batch, recipe.global_batch)
    errors = []
    if recipe.global_batch % micro_batch:
        errors.append(
            f"recipe.micro_batch={recipe.micro_batch}: does not divide recipe.global_batch={recipe.global_batch}"
        )
    if recipe.min_lr > recipe.peak_lr:
        errors.append(f"recipe.min_lr={recipe.min_lr}: must not exceed the peak learning rate {recipe.peak_lr:g}")
    if recipe.warmup_epochs >= recipe.epochs:
        errors.append(f"recipe.warmup_epochs={recipe.warmup_epochs}: must be below recipe.epochs={recipe.epochs}")
    if config.restarts and recipe.warmup_epochs:
        errors.append("method.finetune.restarts: the learning rate restarts without warm-up; set warmup_epochs=0")
    if (recipe.mixup > 0 or recipe.cutmix > 0) and micro_batch % 2:
        errors.append(f"recipe.micro_batch={recipe.micro_batch}: mixup and cutmix mix pairs of images; make it even")
    return errors
