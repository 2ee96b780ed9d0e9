"""MACs of the model as it is at this moment of its training, from the densities that an entry holds."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from repro.config import Config, Method
from repro.geometry import parse_geometry
from repro.measure.cost import method_cost, selector_macs, tokens_kept

_LAYER = "density/"


class CurrentCost:
    """The MACs of one run, entry after entry in the order of its training.

    Exact from the first entry with the density of every layer (`density/<layer>`): they hold until the next such entry,
    for only what writes one changes them. Before it, from the density of the whole where that is all there is; else
    those of the method's end, which a method with a fixed structure has from the start.
    """

    def __init__(self, config: Config) -> None:
        model, method = config.model, config.method
        tokens = tokens_kept(model, method.tokens)
        self._layers = model.layers(tokens)
        self._rest = model.attention_macs(tokens) + selector_macs(model, method)
        self._geometry, self._method = model.model_dump_json(), method.model_dump_json()
        self._densities: dict[str, float] = {}

    def after(self, entry: Mapping[str, Any]) -> float:
        """MACs of one image, in 1e9, of the model that is trained (at a local scale: the local one)."""
        layers = {name.removeprefix(_LAYER): value for name, value in entry.items() if name.startswith(_LAYER)}
        if layers.keys() >= {layer.name for layer in self._layers}:
            self._densities = layers
        if self._densities:
            products = sum(layer.size * self._densities[layer.name] * layer.uses for layer in self._layers)
            return float(products + self._rest) / 1e9
        return _macs_g(self._geometry, self._method, entry.get("density"))


@functools.lru_cache(maxsize=64)
def _macs_g(model: str, method: str, density: float | None) -> float:
    geometry, parsed = parse_geometry(json.loads(model)), Method.model_validate_json(method)
    if density is not None and parsed.weights is not None and parsed.weights.distribution is not None:
        parsed = parsed.model_copy(update={"sparsity": min(max(0.0, 1 - density), 1 - 1e-9)})
    return method_cost(geometry, parsed).macs_g
