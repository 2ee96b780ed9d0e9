"""Low-rank factors: each weight of the MLPs is the product of two matrices of rank `rank_share` of its smaller side."""

from __future__ import annotations

from dataclasses import dataclass

from repro.counting.changes import ModelChanges
from repro.counting.cost_model import NOT_MEASURED, CostModel, Measurements
from repro.counting.geometry import Geometry


@dataclass(frozen=True)
class LowRank(CostModel):
    rank_share: float

    @property
    def faster_by(self) -> str:
        return "MLPs of low rank"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        shares = {
            layer.name: int(self.rank_share * min(layer.shape)) * sum(layer.shape) / layer.size
            for layer in model.layers(model.tokens)
            if ".mlp." in layer.name
        }
        return ModelChanges(densities=shares, stored=shares)
