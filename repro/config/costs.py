"""The cost of a config's model: that of its geometry, with the changes that the method's cost models declare."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from repro.class_names import load_class
from repro.config.method import Method, Part
from repro.config.run_config import Config
from repro.counting import cost
from repro.counting.changes import ModelChanges
from repro.counting.cost import Cost, model_cost
from repro.counting.cost_model import NO_SHAPE, NOT_MEASURED, CostModel, Measurements
from repro.counting.geometry import Geometry
from repro.errors import UserError

REFERENCE = "the reference that other rows are timed against"
LAYER_DENSITY = "density/"  # prefix of a layer's name in a result


def cost_models(method: Method) -> list[CostModel]:
    """Return the cost models of the method's parts, weights first."""
    parts = {"weights": method.weights, "tokens": method.tokens}
    return [part_cost_model(method, part, name) for name, part in parts.items() if part is not None]


def part_cost_model(method: Method, part: Part, name: str) -> CostModel:
    """Build the cost model of one part from the options that its class declares.

    Raises `UserError` if one of them is missing.
    """
    options = {
        **part.options,
        **{key: getattr(part, key) for key in type(part).model_fields},
        "sparsity": method.sparsity,
        "data_sparsity": method.data_sparsity,
    }
    cls = load_class(part.cost_model, CostModel)
    try:
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})
    except TypeError as error:
        raise UserError(f"method.{name}.cost_model={part.cost_model}: {str(error).partition(' ')[2]}") from None


def method_changes(model: Geometry, method: Method, measured: Measurements = NOT_MEASURED) -> ModelChanges:
    """Return what the method removes from a backbone of this geometry and adds to it."""
    changes = (cost_model.changes(model, measured) for cost_model in cost_models(method))
    return functools.reduce(ModelChanges.combined, changes, ModelChanges())


def method_cost(model: Geometry, method: Method, measured: Measurements = NOT_MEASURED) -> Cost:
    """Return the cost of the method on a backbone of this geometry."""
    return model_cost(model, method_changes(model, method, measured))


def row_cost(config: Config, results: Sequence[Mapping[str, Any]] = ()) -> Cost:
    """Return the cost of a row's backbone at the published size, whatever the scale of its runs.

    `results` are those of its finished runs. Measured keep rates apply to the published size too; measured densities of
    layers apply only if the runs have that size.
    """
    densities = measured_densities(config, results) if config.model == config.backbone.paper else None
    return method_cost(config.backbone.paper, config.method, Measurements(results, densities))


def measured_densities(config: Config, results: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the mean final density of each layer over finished runs; None without runs, or if one records none."""
    if not results or not all(any(name.startswith(LAYER_DENSITY) for name in result) for result in results):
        return None
    names = [layer.name for layer in config.model.layers(config.model.tokens)]
    # A layer without an entry has no mask, so it is dense.
    return {
        name: sum(float(result.get(LAYER_DENSITY + name, 1.0)) for result in results) / len(results) for name in names
    }


def measured_token_options(method: Method, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the token options that reproduce the cost which finished runs measured; None if they measured none."""
    if method.tokens is None:
        return None
    return part_cost_model(method, method.tokens, "tokens").measured_options(results)


def physical_macs_g(model: Geometry, method: Method) -> float:
    """Return the MACs of the model as it is executed, in 1e9 per image: see `repro.counting.cost.physical_macs_g`."""
    return cost.physical_macs_g(model, method_changes(model, method))


def macs_depend_on_data(method: Method) -> bool:
    """Return whether the method's MACs depend on the images, so that only a run can measure them."""
    return any(cost_model.depends_on_data for cost_model in cost_models(method))


def faster_by(method: Method) -> str:
    """Return what makes the untrained model smaller than the dense one, such as `tokens dropped`; empty if nothing."""
    return ", ".join(cost_model.faster_by for cost_model in cost_models(method) if cost_model.faster_by)


def has_masked_weights(method: Method) -> bool:
    """Return whether masks set single weights to zero, which does not make a dense matrix product faster."""
    return any(cost_model.why_untimed == NO_SHAPE for cost_model in cost_models(method))


def why_untimed(method: Method) -> str:
    """Return why the method cannot be timed before training; empty if it can."""
    if faster_by(method):
        return ""
    return next((cost_model.why_untimed for cost_model in cost_models(method)), REFERENCE)
