"""What a config's model costs: its geometry, changed as the cost models of its method declare."""

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

REFERENCE = "the reference that others are timed against"
LAYER_DENSITY = "density/"  # prefix of a layer's name in a result


def cost_models(method: Method) -> list[CostModel]:
    """The cost models of the method's parts, weights first."""
    parts = {"weights": method.weights, "tokens": method.tokens}
    return [part_cost_model(method, part, name) for name, part in parts.items() if part is not None]


def part_cost_model(method: Method, part: Part, name: str) -> CostModel:
    """The cost model of one part, given the options that it declares. Raises `UserError` if one is missing."""
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
    """What the method removes from a backbone of this geometry and adds to it."""
    changes = (cost_model.changes(model, measured) for cost_model in cost_models(method))
    return functools.reduce(ModelChanges.combined, changes, ModelChanges())


def method_cost(model: Geometry, method: Method, measured: Measurements = NOT_MEASURED) -> Cost:
    """The cost of the method on a backbone of this geometry."""
    return model_cost(model, method_changes(model, method, measured))


def row_cost(config: Config, results: Sequence[Mapping[str, Any]] = ()) -> Cost:
    """The cost of a row's real backbone, whatever the scale it is trained at.

    `results` are those of its finished runs. Measured keep rates hold for the real backbone too; densities of layers
    only if the runs are of its size.
    """
    densities = measured_densities(config, results) if config.model == config.backbone.paper else None
    return method_cost(config.backbone.paper, config.method, Measurements(results, densities))


def measured_densities(config: Config, results: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """The mean final density of each layer over finished runs; None without runs, or if one has not recorded any."""
    if not results or not all(any(name.startswith(LAYER_DENSITY) for name in result) for result in results):
        return None
    names = [layer.name for layer in config.model.layers(config.model.tokens)]
    # A layer that no mask covers has no entry: it is dense.
    return {
        name: sum(float(result.get(LAYER_DENSITY + name, 1.0)) for result in results) / len(results) for name in names
    }


def measured_token_options(method: Method, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Options of the token part under which it costs what finished runs have measured; None if they have not."""
    if method.tokens is None:
        return None
    return part_cost_model(method, method.tokens, "tokens").measured_options(results)


def physical_macs_g(model: Geometry, method: Method) -> float:
    """MACs, in 1e9 per image, of the model as it runs; see `repro.counting.cost.physical_macs_g`."""
    return cost.physical_macs_g(model, method_changes(model, method))


def rests_on_data(method: Method) -> bool:
    """Whether only a run on data can measure the method's MACs."""
    return any(cost_model.depends_on_data for cost_model in cost_models(method))


def faster_by(method: Method) -> str:
    """`heads and neurons removed`, `tokens dropped`, or both; empty if an untrained model has the dense one's shape."""
    return ", ".join(cost_model.faster_by for cost_model in cost_models(method) if cost_model.faster_by)


def has_masked_weights(method: Method) -> bool:
    """Whether masks set single weights to zero, which makes no dense product faster."""
    return any(cost_model.why_untimed == NO_SHAPE for cost_model in cost_models(method))


def why_untimed(method: Method) -> str:
    """Why a row has no time of its own; empty if it can have one."""
    if faster_by(method):
        return ""
    return next((cost_model.why_untimed for cost_model in cost_models(method)), REFERENCE)
