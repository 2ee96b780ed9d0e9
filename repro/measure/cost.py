"""Parameters and MACs of a row, counted from its config: exact, without building or training a model.

MACs are multiply-accumulates of matrix products and convolutions for one image, QK^T and AV among them; softmax, norms,
activations and biases are not counted, and a zero weight is free. This is what the SViTE paper calls FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.config import Config, Method, Part
from repro.geometry import Geometry, Layer
from repro.measure.layers import whole
from repro.sparsity.budgets import budget
from repro.sparsity.erk import layer_densities

# The papers credit fc2's columns of removed neurons; proj's columns of removed heads their masks leave alone.
_CREDITED_COLUMNS = ("neurons",)


@dataclass(frozen=True)
class Cost:
    """What one row costs.

    Attributes:
        params_m: parameters that are not zero, in millions, biases and norms among them.
        macs_g: MACs of one image, in 1e9, by the table convention: attention matmuls of removed heads count in full.
        flops_saving_pct: saving of `macs_g` against the dense backbone, in percent.
        flops_saving_alt_pct: the same by the figure convention: attention matmuls of removed heads are credited.
        is_exact: False where the final density of single layers is decided by training (global pruning); the split
            over layers is then taken as uniform.
    """

    params_m: float
    macs_g: float
    flops_saving_pct: float
    flops_saving_alt_pct: float
    is_exact: bool


def units_kept(total: int, density: float) -> int:
    """Heads or neurons left of `total` at `density`, rounded down as in the released code (0.7 of 6 heads is 4)."""
    return max(1, int(total * density + 1e-9))


def tokens_kept(model: Geometry, part: Part | None) -> int:
    """Tokens that a selector keeps of this model's, the class token among them: its fraction of the published count."""
    if part is None or part.kept is None or part.of is None:
        return model.tokens
    return min(model.tokens, max(2, round(model.tokens * part.kept / part.of)))


def row_cost(config: Config) -> Cost:
    """The cost of a row's real backbone, whatever the scale it is trained at."""
    return method_cost(config.backbone.paper, config.method)


def method_cost(model: Geometry, method: Method) -> Cost:
    """The cost of `method` on a backbone of this geometry."""
    tokens = tokens_kept(model, method.tokens)
    layers = model.layers(tokens)
    weights = method.weights
    densities = dict.fromkeys((layer.name for layer in layers), 1.0)
    if weights is not None and weights.distribution is not None:
        densities |= _densities(model, method, weights)
    shares = unit_shares(model, weights)
    for layer in layers:
        densities[layer.name] *= _share(layer, shares, _CREDITED_COLUMNS)
    # The biases of removed heads and neurons leave with them.
    vectors_removed = sum(layer.shape[0] * (1 - shares.get(layer.rows_of, 1.0)) for layer in layers)
    attention = model.attention_macs(tokens)
    products = sum(layer.size * densities[layer.name] * layer.uses for layer in layers)
    selector = selector_macs(model, method)
    dense = whole(model).macs
    params = sum(layer.size * densities[layer.name] for layer in layers) + model.vector_params - vectors_removed
    if method.tokens is not None:
        params += model.token_width + 1
    macs = products + attention + selector
    macs_alt = products + attention * shares.get("heads", 1.0) + selector
    return Cost(
        params_m=params / 1e6,
        macs_g=macs / 1e9,
        flops_saving_pct=100 * (1 - macs / dense),
        flops_saving_alt_pct=100 * (1 - macs_alt / dense),
        is_exact=weights is None or weights.distribution != "global",
    )


def _densities(model: Geometry, method: Method, weights: Part) -> dict[str, float]:
    """The density of each masked layer at the end: of all weights, or such that the whole model meets its target."""
    density = 1 - method.sparsity
    assert weights.distribution is not None
    dense = whole(model)
    if weights.block is None or weights.cost is None:
        return layer_densities(weights.distribution, {layer.name: layer.shape for layer in dense.layers}, density)
    found = budget(dense, density, distribution=weights.distribution, cost=weights.cost, block=weights.block)
    return dict(found.densities)


def physical_macs_g(model: Geometry, method: Method) -> float:
    """MACs, in 1e9 per image, of the model as it runs: without removed heads, neurons and tokens.

    Unlike the papers' conventions it credits proj's columns of removed heads, and no weight that a mask only sets to
    zero.
    """
    tokens = tokens_kept(model, method.tokens)
    shares = unit_shares(model, method.weights)
    macs = sum(layer.size * layer.uses * _share(layer, shares, tuple(shares)) for layer in model.layers(tokens))
    macs += model.attention_macs(tokens) * shares.get("heads", 1.0)
    return (macs + selector_macs(model, method)) / 1e9


def unit_shares(model: Geometry, weights: Part | None) -> dict[str, float]:
    """The share of each kind of unit (heads, neurons) that a structured method keeps; empty for any other method."""
    if weights is None or weights.heads_density is None or weights.neurons_density is None:
        return {}
    asked = {"heads": weights.heads_density, "neurons": weights.neurons_density}
    return {name: units_kept(total, asked[name]) / total for name, total in model.units.items()}


def selector_macs(model: Geometry, method: Method) -> int:
    """MACs of a token selector: a linear scorer with one output per patch token."""
    return model.patches * model.token_width if method.tokens is not None else 0


def _share(layer: Layer, shares: Mapping[str, float], columns: Sequence[str]) -> float:
    """What is left of a layer without its removed rows, and without its removed columns of these units."""
    return shares.get(layer.rows_of, 1.0) * (shares.get(layer.columns_of, 1.0) if layer.columns_of in columns else 1.0)
