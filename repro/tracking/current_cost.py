"""MACs of the model during training, computed from the densities in metric entries."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from repro.config import Config
from repro.config.costs import LAYER_DENSITY, method_changes
from repro.counting.changes import ModelChanges
from repro.counting.cost import model_cost


class CurrentCost:
    """The MACs of one run, updated with each entry in the order of training.

    They are exact from the first entry with the density of every layer (`density/<layer>`), and do not change until the
    next such entry, because nothing else changes densities. Before that, they follow from the overall density if the
    method logs it, else from the final densities, which methods with a fixed structure have from the start.
    """

    def __init__(self, config: Config) -> None:
        self._model, self._method = config.model, config.method
        self._changes = method_changes(self._model, self._method)
        self._layers = {layer.name for layer in self._model.layers(self._model.tokens)}
        self._is_exact = False
        self._at_density = functools.lru_cache(maxsize=64)(self._estimated_changes)

    def after(self, entry: Mapping[str, Any]) -> float:
        """Return MACs per image, in 1e9, of the model being trained (the local model at local scale)."""
        densities = {
            name.removeprefix(LAYER_DENSITY): value for name, value in entry.items() if name.startswith(LAYER_DENSITY)
        }
        if densities.keys() >= self._layers:
            self._changes = replace(self._changes, densities=densities)
            self._is_exact = True
        density = entry.get("density")
        if self._is_exact or density is None:
            return model_cost(self._model, self._changes).macs_g
        return model_cost(self._model, self._at_density(density)).macs_g

    def _estimated_changes(self, density: float) -> ModelChanges:
        sparsity = min(max(0.0, 1 - density), 1 - 1e-9)
        return method_changes(self._model, self._method.model_copy(update={"sparsity": sparsity}))
