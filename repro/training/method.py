"""From a method's config to its parts: classes named by the config, given what the run knows."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from repro.errors import UserError
from repro.measure.cost import token_arguments, tokens_kept
from repro.measure.layers import whole
from repro.parts import MethodPart
from repro.schedule import SCHEDULE_OPTIONS, Length, mask_schedule

if TYPE_CHECKING:
    from repro.config import Config


def build_parts(
    config: Config, model: nn.Module, length: Length, budget: Sequence[float] | None = None
) -> list[MethodPart]:
    """The parts of the run's method, attached to `model`: weights first, so that masks see no selector.

    `budget` are keep rates that another run has measured; None: those of the config.

    Raises `UserError` for a method that has no training yet.
    """
    return attach(part_arguments(config, length, budget), model)


def attach(arguments: Sequence[tuple[str, Mapping[str, Any]]], model: nn.Module) -> list[MethodPart]:
    """The parts of these classes, attached to `model` one after the other. Raises `UserError` for what is none."""
    return [load_part(target)(model, **given) for target, given in arguments]


def part_arguments(
    config: Config, length: Length, budget: Sequence[float] | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The class of each part, and all that it is given beside the model: plain values, schedules and layers.

    Raises `UserError` for a method that has no training yet.
    """
    method = config.method
    if not method.is_trainable:
        raise UserError(f"method={method.name}: no training for this method yet (its Params and MACs are counted)")
    found: list[tuple[str, dict[str, Any]]] = []
    if method.weights is not None:
        given: dict[str, Any] = {
            "distribution": method.weights.distribution,
            "heads_density": method.weights.heads_density,
            "neurons_density": method.weights.neurons_density,
        }
        options = {**method.weights.options, **{key: value for key, value in given.items() if value is not None}}
        schedule = mask_schedule(config, length)
        if schedule is not None:
            options = {key: value for key, value in options.items() if key not in SCHEDULE_OPTIONS}
            options["schedule"] = schedule
        if method.weights.block is not None:
            options["whole"] = whole(config.model, tokens_kept(config.model, method.tokens))
        found.append((str(method.weights.target), {"sparsity": method.sparsity, "seed": config.seed, **options}))
    if method.tokens is not None:
        given = token_arguments(config, length.updates, config.seed)
        found.append((str(method.tokens.target), {**given, **({"keep_rates": budget} if budget else {})}))
    return found


def load_part(target: str) -> Any:
    """The class that a config names. Raises `UserError` where there is none, or it is no part of a method."""
    module, _, name = target.rpartition(".")
    try:
        loaded = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError):
        raise UserError(f"{target}: no such class; a method's target is module.Class, see conf/method") from None
    if not (isinstance(loaded, type) and issubclass(loaded, MethodPart)):
        raise UserError(f"{target}: not a repro.parts.MethodPart")
    return loaded
