"""Parameters and MACs of a row, counted from its config: exact, without building or training a model.

MACs are multiply-accumulates of matrix products and convolutions for one image, QK^T and AV among them; softmax, norms,
activations and biases are not counted, and a zero weight is free. This is what the SViTE paper calls FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repro.layer import Layer, stage_starts
from repro.measure.keep_rates import Kept
from repro.measure.layers import whole
from repro.sparsity.budgets import budget
from repro.sparsity.erk import layer_densities

if TYPE_CHECKING:
    from repro.config import Config, Method, Part
    from repro.geometry import Geometry

# The papers credit fc2's columns of removed neurons; proj's columns of removed heads their masks leave alone.
_CREDITED_COLUMNS = ("neurons",)
_DENSITY = "density/"  # and a layer's name, in a result


@dataclass(frozen=True)
class Cost:
    """What one row costs.

    Attributes:
        params_m: parameters that are not zero, in millions, biases and norms among them.
        macs_g: MACs of one image, in 1e9, by the table convention: attention matmuls of removed heads count in full.
        flops_saving_pct: saving of `macs_g` against the dense backbone, in percent.
        flops_saving_alt_pct: the same by the figure convention: attention matmuls of removed heads are credited.
        physical_saving_pct: saving of the MACs of the model as it runs, see `physical_macs_g`.
        is_exact: False where MACs are an estimate: the final density of single layers is decided by training (global
            pruning) and no run at the published size has told it, so that the split over layers is taken as uniform; or
            a run measures how many tokens are left, and none has.
        is_measured: whether MACs rest on what a run has measured on its data.
        are_params_exact: False where the split decides the parameters: the target counts MACs.
    """

    params_m: float
    macs_g: float
    flops_saving_pct: float
    flops_saving_alt_pct: float
    physical_saving_pct: float
    is_exact: bool
    is_measured: bool = False
    are_params_exact: bool = True


def units_kept(total: int, density: float) -> int:
    """Heads or neurons left of `total` at `density`, rounded down as in the released code (0.7 of 6 heads is 4)."""
    return max(1, int(total * density + 1e-9))


def tokens_kept(model: Geometry, part: Part | None) -> int:
    """Tokens that a selector keeps of this model's, the class token among them: its fraction of the published count."""
    if part is None or part.kept is None or part.of is None:
        return model.tokens
    return min(model.tokens, max(2, round(model.tokens * part.kept / part.of)))


def token_arguments(config: Config, updates: int, seed: int) -> dict[str, Any]:
    """What the class of a token part is given beside the model: its options, for a model of this size."""
    part = config.method.tokens
    assert part is not None
    given: dict[str, Any] = {**part.options, "tokens": config.model.tokens, "updates": updates, "seed": seed}
    if part.kept is not None:
        given["kept"] = tokens_kept(config.model, part)
    if part.rank is not None:
        given["rank"] = attention_rank(config.model, part)
    return given


def attention_rank(model: Geometry, part: Part | None) -> int | None:
    """How many mixtures of this model's tokens attention has for keys: its fraction of the published count."""
    if part is None or part.rank is None or part.of is None:
        return None
    return min(model.tokens, max(1, round(model.tokens * part.rank / part.of)))


def row_cost(config: Config, results: Sequence[Mapping[str, Any]] = ()) -> Cost:
    """The cost of a row's real backbone, whatever the scale it is trained at.

    `results` are those of its finished runs: where images decide how many tokens stay, they say how many did; where
    training decides what each layer keeps, those of the published size say that.
    """
    part = config.method.tokens
    kept = Kept.measured(results, len(part.keep_rates)) if part is not None and part.keep_rates else None
    told = _told(config, results) if config.model == config.backbone.paper else None
    return method_cost(config.backbone.paper, config.method, kept, told)


def _told(config: Config, results: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """The density of each layer that training has left, the mean over runs; None where that is known without one."""
    weights = config.method.weights
    if weights is None or weights.distribution != "global" or not results:
        return None
    if not all(any(name.startswith(_DENSITY) for name in result) for result in results):
        return None
    names = [layer.name for layer in config.model.layers(config.model.tokens)]
    # A layer that no mask covers is dense.
    return {name: sum(float(result.get(_DENSITY + name, 1.0)) for result in results) / len(results) for name in names}


def rests_on_data(method: Method) -> bool:
    """Whether the MACs of a method are known only once a run has measured them."""
    return method.tokens is not None and bool(method.tokens.keep_rates)


def method_cost(
    model: Geometry, method: Method, kept: Kept | None = None, told: Mapping[str, float] | None = None
) -> Cost:
    """The cost of `method` on a backbone of this geometry.

    `kept` is what a run has measured, the plan's where None; `told` the density of each layer, as planned where None.
    """
    tokens = tokens_kept(model, method.tokens)
    layers = model.layers(tokens)
    left = _left(model, method, kept)
    weights = method.weights
    densities = dict.fromkeys((layer.name for layer in layers), 1.0)
    if weights is not None and weights.distribution is not None:
        densities |= told or _densities(model, method, weights)
    shares = unit_shares(model, weights)
    for layer in layers:
        densities[layer.name] *= _share(layer, shares, _CREDITED_COLUMNS)
    # The biases of removed heads and neurons leave with them.
    vectors_removed = sum(layer.shape[0] * (1 - shares.get(layer.rows_of, 1.0)) for layer in layers)
    attention = _attention_macs(model, method, tokens, left)
    products = sum(layer.size * densities[layer.name] * layer.uses * left.share(layer) for layer in layers)
    selector = selector_macs(model, method, kept)
    dense = whole(model).macs
    is_split_known = weights is None or weights.distribution != "global" or told is not None
    counts_macs = weights is not None and weights.cost == "macs"
    params = sum(layer.size * densities[layer.name] for layer in layers) + model.vector_params - vectors_removed
    params += selector_params(model, method)
    macs = products + attention + selector
    macs_alt = products + attention * shares.get("heads", 1.0) + selector
    return Cost(
        params_m=params / 1e6,
        macs_g=macs / 1e9,
        flops_saving_pct=100 * (1 - macs / dense),
        flops_saving_alt_pct=100 * (1 - macs_alt / dense),
        physical_saving_pct=100 * (1 - 1e9 * physical_macs_g(model, method, kept) / dense),
        is_exact=(is_split_known or counts_macs) and (kept is not None or not rests_on_data(method)),
        is_measured=kept is not None,
        are_params_exact=is_split_known or not counts_macs,
    )


@dataclass(frozen=True)
class _Left:
    """Tokens that reach each block, class token among them, as a share of all: the mean, and the mean square."""

    linear: tuple[float, ...] = ()
    square: tuple[float, ...] = ()

    def share(self, layer: Layer) -> float:
        return self.linear[layer.block] if layer.block is not None and self.linear else 1.0


def _left(model: Geometry, method: Method, kept: Kept | None) -> _Left:
    part = method.tokens
    if part is None or not part.keep_rates:
        return _Left()
    rates = kept or Kept.planned(part.keep_rates, part.keep_spread)
    starts = stage_starts(model.token_blocks, len(rates.mean))
    patches, tokens = model.patches, model.tokens
    linear, square = [1.0] * model.token_blocks, [1.0] * model.token_blocks
    for start, mean, mean_square in zip(starts, rates.mean, rates.square, strict=True):
        for block in range(start, model.token_blocks):
            linear[block] = (1 + patches * mean) / tokens
            square[block] = (1 + 2 * patches * mean + patches**2 * mean_square) / tokens**2
    return _Left(tuple(linear), tuple(square))


def _attention_macs(model: Geometry, method: Method, tokens: int, left: _Left) -> float:
    """MACs between activations, those of mixing keys and values among them."""
    macs: float = model.attention_macs(tokens)
    if left.square:
        macs *= sum(left.square) / len(left.square)
    rank = attention_rank(model, method.tokens)
    if rank is not None:
        macs *= 2 * rank / tokens  # as many again for the mixing: rank x tokens x width, for keys and for values
    return macs


def _densities(model: Geometry, method: Method, weights: Part) -> dict[str, float]:
    """The density of each masked layer at the end: of all weights, or such that the whole model meets its target."""
    density = 1 - method.sparsity
    assert weights.distribution is not None
    dense = whole(model)
    if weights.block is None or weights.cost is None:
        return layer_densities(weights.distribution, {layer.name: layer.shape for layer in dense.layers}, density)
    found = budget(dense, density, distribution=weights.distribution, cost=weights.cost, block=weights.block)
    return dict(found.densities)


def physical_macs_g(model: Geometry, method: Method, kept: Kept | None = None) -> float:
    """MACs, in 1e9 per image, of the model as it runs: without removed heads, neurons and tokens.

    Unlike the papers' conventions it credits proj's columns of removed heads, scores patches without a key for each
    (`repro.tokens.asking`), and credits no weight that a mask only sets to zero. `kept` is what a run has measured, the
    plan's where None.
    """
    tokens = tokens_kept(model, method.tokens)
    shares = unit_shares(model, method.weights)
    left = _left(model, method, kept)
    macs = sum(
        layer.size * layer.uses * left.share(layer) * _share(layer, shares, tuple(shares))
        for layer in model.layers(tokens)
    )
    macs += _attention_macs(model, method, tokens, left) * shares.get("heads", 1.0)
    return (macs + selector_macs(model, method, kept, is_as_run=True)) / 1e9


def unit_shares(model: Geometry, weights: Part | None) -> dict[str, float]:
    """The share of each kind of unit (heads, neurons) that a structured method keeps; empty for any other method."""
    if weights is None or weights.heads_density is None or weights.neurons_density is None:
        return {}
    asked = {"heads": weights.heads_density, "neurons": weights.neurons_density}
    return {name: units_kept(total, asked[name]) / total for name, total in model.units.items()}


def selector_macs(model: Geometry, method: Method, kept: Kept | None = None, *, is_as_run: bool = False) -> float:
    """MACs of what scores tokens: one output for each patch, or a query of the class token and a key for each patch.

    A scorer that is there in stages scores, in each, the patches that the stage before has left. As it runs, the class
    token's query goes back through the keys' weights, and no patch has a key: see `repro.tokens.asking`.
    """
    part = method.tokens
    if part is None or part.scorer == "none":
        return 0
    width, rates = model.token_width, part.keep_rates
    if part.scorer == "linear":
        return model.patches * width
    means = kept.mean if kept is not None else rates
    reaching = [model.patches * share for share in (1.0, *means[:-1])]
    if not is_as_run:
        return sum(patches * (width * width + width) + width * width for patches in reaching)
    own_class_token = 0 if part.has_own_scorer else 1  # a block's attention is over the class token, too
    heads = part.scorer_heads(model.attention_heads)
    return sum((patches + own_class_token) * heads * width + 2 * width * width for patches in reaching)


def selector_params(model: Geometry, method: Method) -> int:
    """Parameters that a token part adds: those of its scorers, or of its mixtures of tokens."""
    part = method.tokens
    if part is None:
        return 0
    width = model.token_width
    rank = attention_rank(model, part)
    if rank is not None:
        return model.token_blocks * 2 * rank * model.tokens
    if not part.has_own_scorer:
        return 0
    if part.scorer == "linear":
        return width + 1
    return len(part.keep_rates) * (2 * width * (width + 1) + 2 * width)  # query, key and a norm


def _share(layer: Layer, shares: Mapping[str, float], columns: Sequence[str]) -> float:
    """What is left of a layer without its removed rows, and without its removed columns of these units."""
    return shares.get(layer.rows_of, 1.0) * (shares.get(layer.columns_of, 1.0) if layer.columns_of in columns else 1.0)
