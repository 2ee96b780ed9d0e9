"""Cost models of weight methods: what they leave of a model. Torch-free, because plans and reports use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.counting.budgets import NEURON, Budget, budget
from repro.counting.changes import ModelChanges
from repro.counting.cost_model import BY_TRAINING, NO_SHAPE, NOT_MEASURED, CostModel, Measurements
from repro.counting.erk import layer_densities
from repro.counting.geometry import Geometry
from repro.counting.layers import DenseModel, is_masked, units_kept
from repro.errors import UserError


@dataclass(frozen=True)
class WeightMasks(CostModel):
    """Masks on individual weights: `sparsity` of all prunable weights, distributed over layers by `distribution`.

    With `masks=patch_embedding_only`, no other layer is masked, regardless of its planned density.
    """

    sparsity: float
    distribution: str
    masks: str = "all"

    why_untimed = NO_SHAPE

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """Densities by layer; with global pruning, those of finished runs, or uniform until there are any."""
        if self.distribution == "global" and measured.densities is not None:
            return ModelChanges(measured.densities)
        shapes = {layer.name: layer.shape for layer in model.dense_model().layers}
        planned = layer_densities(self.distribution, shapes, 1 - self.sparsity)
        planned = {name: density if is_masked(name, self.masks) else 1.0 for name, density in planned.items()}
        return ModelChanges(planned, are_macs_exact=self.distribution != "global")


@dataclass(frozen=True)
class WholeModelTarget(CostModel):
    """Masks on entries, square blocks or units whose `sparsity` is that of the whole model's parameters or MACs."""

    sparsity: float
    distribution: str
    block: str
    cost: str

    @property
    def why_untimed(self) -> str:
        """Masks change no shape, and which units remain is known only after training."""
        return BY_TRAINING if self.block == NEURON else NO_SHAPE

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """As `WeightMasks`, except that the quantity that the target counts is always exact."""
        if self.distribution == "global" and measured.densities is not None:
            return ModelChanges(measured.densities)
        return ModelChanges(
            self._budget(model.dense_model()).densities,
            are_macs_exact=self.distribution != "global" or self.cost == "macs",
            are_params_exact=self.distribution != "global" or self.cost != "macs",
        )

    def class_options(self, model: Geometry, tokens: int) -> dict[str, Any]:
        """The dense model, from which the part computes its budget."""
        return {"dense_model": model.dense_model(tokens)}

    def errors(self, model: Geometry, published: Geometry, method: str, backbone: str) -> list[str]:
        """Units that the backbone does not have, or a target below the cost of what stays dense."""
        if self.block == NEURON and not model.units:
            return [f"method.weights.block={NEURON}: masks heads and neurons, backbone={backbone} has none"]
        for geometry in (model, published):
            try:
                self._budget(geometry.dense_model())
            except UserError as error:
                return [str(error)]
        return []

    def _budget(self, dense: DenseModel) -> Budget:
        return budget(dense, 1 - self.sparsity, distribution=self.distribution, cost=self.cost, block=self.block)


@dataclass(frozen=True)
class RemovedUnits(CostModel):
    """Heads and neurons are removed from every block, down to these densities."""

    heads_density: float
    neurons_density: float

    faster_by = "heads and neurons removed"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """Remaining shares of heads and neurons, each a whole number of units."""
        remaining = {"heads": self.heads_density, "neurons": self.neurons_density}
        return ModelChanges(
            unit_shares={kind: units_kept(total, remaining[kind]) / total for kind, total in model.units.items()}
        )

    def errors(self, model: Geometry, published: Geometry, method: str, backbone: str) -> list[str]:
        """A backbone without units, or a density that keeps none of them."""
        if not model.units:
            return [f"method={method}: removes heads and neurons, backbone={backbone} has none"]
        densities = {"heads": self.heads_density, "neurons": self.neurons_density}
        return [
            f"method.weights.{kind}_density={densities[kind]:g}: keeps none of the {total} {kind} of a block; must be "
            f"at least 1/{total}"
            for kind, total in model.units.items()
            if total * densities[kind] < 1 - 1e-9
        ]
