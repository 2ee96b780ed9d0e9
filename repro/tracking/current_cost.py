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


def current_macs_g(config: Config, entry: Mapping[str, Any]) -> float:
    """MACs of one image, in 1e9, of the model that is trained (at a local scale: the local one).

    Exact where the entry has the density of every layer (`density/<layer>`); from the density of the whole where that
    is all there is; else those of the method's end, which a method with a fixed structure has from the start.
    """
    model, method = config.model, config.method
    layers = {name.removeprefix(_LAYER): value for name, value in entry.items() if name.startswith(_LAYER)}
    tokens = tokens_kept(model, method.tokens)
    counted = model.layers(tokens)
    if layers and layers.keys() >= {layer.name for layer in counted}:
        products = sum(layer.size * layers[layer.name] * layer.uses for layer in counted)
        return float(products + model.attention_macs(tokens) + selector_macs(model, method)) / 1e9
    return _macs_g(model.model_dump_json(), method.model_dump_json(), entry.get("density"))


@functools.lru_cache(maxsize=64)
def _macs_g(model: str, method: str, density: float | None) -> float:
    geometry, parsed = parse_geometry(json.loads(model)), Method.model_validate_json(method)
    if density is not None and parsed.weights is not None and parsed.weights.distribution is not None:
        parsed = parsed.model_copy(update={"sparsity": min(max(0.0, 1 - density), 1 - 1e-9)})
    return method_cost(geometry, parsed).macs_g
