"""Parameters and MACs of a row, counted from its config: exact, without building or training a model.

MACs are multiply-accumulates of matrix products and convolutions for one image, QK^T and AV among them; softmax, norms,
activations and biases are not counted, and a zero weight is free. This is what the SViTE paper calls FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro.config import AnyGeometry, Config, Geometry, Method, Part
from repro.errors import UserError
from repro.measure.layers import whole
from repro.sparsity.budgets import budget
from repro.sparsity.erk import layer_densities


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


def tokens_of(model: AnyGeometry) -> int:
    """Tokens of one image. Raises `UserError` for a model that has none."""
    if not isinstance(model, Geometry):
        raise UserError("method.tokens: needs a vision transformer; this backbone has no tokens")
    return model.tokens


def tokens_kept(model: AnyGeometry, part: Part | None) -> int:
    """Tokens that a selector keeps of this model's, the class token among them: its fraction of the published count.

    0 for a model without tokens.
    """
    if not isinstance(model, Geometry):
        return 0
    if part is None or part.kept is None or part.of is None:
        return model.tokens
    return min(model.tokens, max(2, round(model.tokens * part.kept / part.of)))


def row_cost(config: Config) -> Cost:
    """The cost of a row's real backbone, whatever the scale it is trained at."""
    return method_cost(config.backbone.paper, config.method)


def method_cost(model: AnyGeometry, method: Method) -> Cost:
    """The cost of `method` on a backbone of this geometry."""
    counted = whole(model, tokens_kept(model, method.tokens))
    weights = method.weights
    densities = {layer.name: 1.0 for layer in counted.layers}
    heads = 1.0
    vectors_removed = 0.0
    if weights is not None and weights.distribution is not None:
        densities |= _densities(model, method, weights)
    units = unit_shares(model, weights)
    if units is not None and isinstance(model, Geometry):
        heads, neurons = units
        for name in densities:
            if name.endswith("qkv"):
                densities[name] = heads
            elif name.endswith(("fc1", "fc2")):
                densities[name] = neurons
        # The biases of removed heads and neurons leave with them.
        hidden = model.embed_dim * model.mlp_ratio
        vectors_removed = model.depth * (3 * model.embed_dim * (1 - heads) + hidden * (1 - neurons))
    products = sum(layer.size * densities[layer.name] * layer.uses for layer in counted.layers)
    selector = selector_macs(model, method)
    dense = whole(model).macs
    params = sum(layer.size * densities[layer.name] for layer in counted.layers)
    params += counted.vector_params - vectors_removed
    if method.tokens is not None and isinstance(model, Geometry):
        params += model.embed_dim + 1
    macs = products + counted.attention_macs + selector
    macs_alt = products + counted.attention_macs * heads + selector
    return Cost(
        params_m=params / 1e6,
        macs_g=macs / 1e9,
        flops_saving_pct=100 * (1 - macs / dense),
        flops_saving_alt_pct=100 * (1 - macs_alt / dense),
        is_exact=weights is None or weights.distribution != "global",
    )


def _densities(model: AnyGeometry, method: Method, weights: Part) -> dict[str, float]:
    """The density of each masked layer at the end: of all weights, or such that the whole model meets its target."""
    density = 1 - method.sparsity
    assert weights.distribution is not None
    if weights.block is None or weights.cost is None:
        shapes = {layer.name: layer.shape for layer in whole(model).layers}
        return layer_densities(weights.distribution, shapes, density)
    found = budget(whole(model), density, distribution=weights.distribution, cost=weights.cost, block=weights.block)
    return dict(found.densities)


def unit_shares(model: AnyGeometry, weights: Part | None) -> tuple[float, float] | None:
    """Shares of heads and of neurons that stay in every block; None where no fixed share is removed."""
    if weights is None or weights.heads_density is None or weights.neurons_density is None:
        return None
    if not isinstance(model, Geometry):
        return None
    hidden = model.embed_dim * model.mlp_ratio
    heads = units_kept(model.num_heads, weights.heads_density) / model.num_heads
    return heads, units_kept(hidden, weights.neurons_density) / hidden


def selector_macs(model: AnyGeometry, method: Method) -> int:
    """MACs of a token selector: a linear scorer with one output per patch token."""
    return model.patches * model.embed_dim if method.tokens is not None and isinstance(model, Geometry) else 0


def physical_macs_g(model: AnyGeometry, method: Method) -> float:
    """MACs, in 1e9 per image, of the model as it runs: without removed heads, neurons and tokens.

    Unlike the papers' conventions it credits proj's columns of removed heads, and no weight that a mask only sets to
    zero.
    """
    counted = whole(model, tokens_kept(model, method.tokens))
    heads, neurons = unit_shares(model, method.weights) or (1.0, 1.0)
    macs = 0.0
    for layer in counted.layers:
        share = heads if ".attn." in layer.name else neurons if ".mlp." in layer.name else 1.0
        macs += layer.size * layer.uses * share
    return (macs + counted.attention_macs * heads + selector_macs(model, method)) / 1e9
