"""Parameters and MACs of a model, counted from a geometry and a method's changes to it, without building it.

MACs are multiply-accumulates of matrix products and convolutions for one image, QK^T and AV included; softmax, norms,
activations and biases are not counted, and a zero weight is free. This is what the SViTE paper calls FLOPs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from repro.counting.changes import ModelChanges
from repro.counting.geometry import Geometry
from repro.counting.layers import Layer

# The papers credit fc2's columns of removed neurons, but not proj's columns of removed heads: no mask covers them.
_CREDITED_COLUMNS = ("neurons",)


@dataclass(frozen=True)
class Cost:
    """The cost of one model.

    Attributes:
        params_m: nonzero parameters in millions, biases and norms included.
        macs_g: MACs of one image, in 1e9, by the table convention: attention products of removed heads count in full.
        flops_saving_pct: saving of `macs_g` relative to the dense backbone, in percent.
        flops_saving_alt_pct: the same by the figure convention: attention products of removed heads are credited.
        params_saving_pct: saving of `params_m` relative to the dense backbone, in percent.
        physical_saving_pct: saving in MACs of the model as it runs, see `physical_macs_g`.
        is_exact: False if MACs are an estimate: training determines the final densities of individual layers (global
            pruning) or the number of remaining tokens, and no run at the published size has measured them.
        is_measured: whether MACs are based on measurements of a run on its data.
        are_params_exact: False if the parameters are an estimate: the target counts MACs, and training determines how
            the density is distributed over layers.
    """

    params_m: float
    macs_g: float
    flops_saving_pct: float
    flops_saving_alt_pct: float
    params_saving_pct: float
    physical_saving_pct: float
    is_exact: bool
    is_measured: bool = False
    are_params_exact: bool = True


def model_cost(model: Geometry, changes: ModelChanges) -> Cost:
    """Count the parameters and MACs of a backbone of this geometry with these changes."""
    tokens = changes.tokens or model.tokens
    layers = model.layers(tokens)
    shares = changes.unit_shares
    nonzero = {
        layer.name: changes.densities.get(layer.name, 1.0) * _unit_share(layer, shares, _CREDITED_COLUMNS)
        for layer in layers
    }
    # Biases of removed heads and neurons are removed with them.
    removed_vectors = sum(layer.shape[0] * (1 - shares.get(layer.rows_of, 1.0)) for layer in layers)
    params = sum(layer.size * nonzero[layer.name] for layer in layers) + model.vector_params - removed_vectors
    products = sum(
        layer.size * nonzero[layer.name] * layer.uses * changes.layer_tokens.get(layer.name, 1.0) for layer in layers
    )
    attention = model.attention_macs(tokens) * changes.attention_share
    macs = products + attention + changes.added_macs
    macs_alt = products + attention * shares.get("heads", 1.0) + changes.added_macs
    params += changes.added_params
    dense_model = model.dense_model()
    dense = dense_model.macs
    return Cost(
        params_m=params / 1e6,
        macs_g=macs / 1e9,
        flops_saving_pct=100 * (1 - macs / dense),
        flops_saving_alt_pct=100 * (1 - macs_alt / dense),
        params_saving_pct=100 * (1 - params / dense_model.params),
        physical_saving_pct=100 * (1 - 1e9 * physical_macs_g(model, changes) / dense),
        is_exact=changes.are_macs_exact,
        is_measured=changes.is_measured,
        are_params_exact=changes.are_params_exact,
    )


def physical_macs_g(model: Geometry, changes: ModelChanges) -> float:
    """MACs, in 1e9 per image, of the model as it runs: without removed heads, neurons and tokens.

    Unlike the papers' conventions, this credits proj's columns of removed heads, counts modules that the method adds as
    this code computes them, and does not credit weights that a mask only sets to zero.
    """
    tokens = changes.tokens or model.tokens
    shares = changes.unit_shares
    products = sum(
        layer.size
        * layer.uses
        * changes.layer_tokens.get(layer.name, 1.0)
        * changes.stored.get(layer.name, 1.0)
        * _unit_share(layer, shares, shares)
        for layer in model.layers(tokens)
    )
    attention = model.attention_macs(tokens) * changes.attention_share * shares.get("heads", 1.0)
    return (products + attention + changes.added_macs_as_run) / 1e9


def _unit_share(layer: Layer, shares: Mapping[str, float], columns: Collection[str]) -> float:
    """Remaining share of a layer without its removed rows, and without removed columns of the units in `columns`."""
    return shares.get(layer.rows_of, 1.0) * (shares.get(layer.columns_of, 1.0) if layer.columns_of in columns else 1.0)
