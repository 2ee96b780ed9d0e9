"""The torch-free half of a method part: what it changes in a model, declared next to the method.

A file in conf/method names a subclass of `CostModel` as its `cost_model`. Planning, checks and reports use only this
class, so they need neither torch nor the method's own class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.counting.changes import ModelChanges
from repro.counting.geometry import Geometry

# Reasons why a row is not timed.
NO_SHAPE = "unstructured masks do not change tensor shapes; repro export measures sparse kernels"
BY_TRAINING = "which heads and neurons are removed is known only after training; repro export times the finished model"


@dataclass(frozen=True)
class Measurements:
    """What finished runs of a row have measured.

    Attributes:
        results: their results (result.json), at any scale.
        densities: the mean final density of each layer; None if no run has the geometry that is counted.
    """

    results: Sequence[Mapping[str, Any]] = ()
    densities: Mapping[str, float] | None = None


NOT_MEASURED = Measurements()


@dataclass(frozen=True)
class CostModel:
    """What one part of a method changes in a model.

    A subclass is a frozen dataclass. Its fields are the options of the part that it reads, named as in the config.
    `sparsity` and `data_sparsity` are those of the method, as fractions.
    """

    @property
    def faster_by(self) -> str:
        """What makes the model physically smaller (`tokens dropped`); empty if an untrained one has the dense shape."""
        return ""

    @property
    def why_untimed(self) -> str:
        """Why a part that does not make the model smaller is not timed."""
        return "its model has the shape of the dense one"

    @property
    def depends_on_data(self) -> bool:
        """Whether the MACs depend on the data, so that only a run can measure them."""
        return False

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """The changes to a backbone of this geometry: as finished runs have measured them, otherwise as planned."""
        return ModelChanges()

    def class_options(self, model: Geometry, tokens: int) -> dict[str, Any]:
        """Options of the part's class that differ from those of the config for a model of this size.

        `tokens` is the number of tokens after the embedding.
        """
        return {}

    def measured_options(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Options that give an untrained model the cost that finished runs have measured; None if they have not."""
        return None

    def errors(self, model: Geometry, published: Geometry, method: str, backbone: str) -> list[str]:
        """One message for each option that does not fit the geometry to be trained, or the published one."""
        return []
