"""Builds the parts of a method: the classes that a config names, with their options for its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from repro.config import Config, Part
from repro.config.costs import method_changes, part_cost_model
from repro.config.schedule import SCHEDULE_OPTIONS, mask_schedule
from repro.counting.schedule import Length
from repro.errors import UserError
from repro.methods.base import MethodPart, attach

_SHARED_OPTIONS = ("distribution", "heads_density", "neurons_density")


def build_parts(
    config: Config, model: nn.Module, length: Length, keep_rates: Sequence[float] | None = None
) -> list[MethodPart]:
    """Build the parts of the run's method and attach them to `model`, weights first, so that no selector is masked.

    `keep_rates` are those measured by another run; None for those of the config.

    Raises `UserError` for a method that is not implemented.
    """
    return attach(part_arguments(config, length, keep_rates), model)


def part_arguments(
    config: Config, length: Length, keep_rates: Sequence[float] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return the class of each part and its arguments other than the model: plain values, schedules, the dense model.

    Raises `UserError` for a method that is not implemented.
    """
    method = config.method
    if not method.is_trainable:
        raise UserError(f"method={method.name}: no training for this method yet (its Params and MACs are counted)")
    arguments: list[tuple[str, dict[str, Any]]] = []
    if method.weights is not None:
        options = _class_options(config, method.weights, "weights")
        schedule = mask_schedule(config, length)
        if schedule is not None:
            options = {key: value for key, value in options.items() if key not in SCHEDULE_OPTIONS}
            options["schedule"] = schedule
        options |= {"sparsity": method.sparsity, "seed": config.seed}
        arguments.append((str(method.weights.target), options))
    if method.tokens is not None:
        options = token_arguments(config, length.updates, config.seed)
        arguments.append((str(method.tokens.target), options | ({"keep_rates": keep_rates} if keep_rates else {})))
    return arguments


def token_arguments(config: Config, updates: int, seed: int) -> dict[str, Any]:
    """Return the arguments of the token part's class other than the model."""
    assert config.method.tokens is not None
    options = _class_options(config, config.method.tokens, "tokens")
    return {**options, "tokens": config.model.tokens, "updates": updates, "seed": seed}


def _class_options(config: Config, part: Part, name: str) -> dict[str, Any]:
    tokens = method_changes(config.model, config.method).tokens or config.model.tokens
    shared = {key: value for key in _SHARED_OPTIONS if (value := getattr(part, key)) is not None}
    scaled = part_cost_model(config.method, part, name).class_options(config.model, tokens)
    return {**part.options, **shared, **scaled}
