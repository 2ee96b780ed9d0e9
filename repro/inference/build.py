"""Builds the model of a run outside of training: masked, as it was trained, or at its planned physical size."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from repro.config import Config
from repro.config.costs import method_changes
from repro.inference.shrink import Sizes, block_sizes, resize
from repro.methods.base import MethodPart, attach
from repro.methods.build import token_arguments
from repro.models.backbone import build_model


def masked_model(config: Config, weights: dict[str, Tensor] | None) -> nn.Module:
    """Build a run's model with full-size matrices, in evaluation mode; without weights it keeps its initialization."""
    model = build_model(config.model, 0.0, config.seed)
    attach_selector(model, selector_spec(config))
    if weights is not None:
        model.load_state_dict(weights)
    return model.eval()


def physical_model(config: Config) -> nn.Module:
    """Build a run's model at its planned physical size, with fresh weights, in evaluation mode.

    The heads, neurons and tokens that the method is to remove are removed. Weights that a mask would set to zero stay.
    """
    model = build_model(config.model, 0.0, 0)
    selector = attach_selector(model, selector_spec(config))
    if selector is not None:
        selector.apply_planned_cost()
    shares = method_changes(config.model, config.method).unit_shares
    if shares:
        heads, neurons = (round(config.model.units[kind] * shares[kind]) for kind in ("heads", "neurons"))
        depth = len(block_sizes(model).heads)
        resize(model, Sizes((heads,) * depth, (neurons,) * depth))
    return model.eval()


def selector_spec(config: Config) -> dict[str, Any] | None:
    """Return the class and arguments of the run's token selection as JSON values, or None if it selects no tokens."""
    part = config.method.tokens
    if part is None:
        return None
    return {"target": part.target, "arguments": token_arguments(config, updates=1, seed=0)}


def attach_selector(model: nn.Module, spec: dict[str, Any] | None) -> MethodPart | None:
    """Attach the untrained token selection of `selector_spec`, in place. Raises `UserError` for an unknown class."""
    if spec is None:
        return None
    (part,) = attach([(spec["target"], spec["arguments"])], model)
    return part
