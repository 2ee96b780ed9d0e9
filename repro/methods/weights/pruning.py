"""Pruning to a density by a score, over the whole model or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.counting.erk import layer_densities
from repro.methods.weights.masks import Masks
from repro.methods.weights.selection import highest


@torch.no_grad()
def prune_to(masks: Masks, scores: Mapping[str, Tensor], distribution: str, density: float) -> dict[str, Tensor]:
    """Return masks that keep the active weights with the highest scores. No weight becomes active.

    Args:
        masks: the current masks; not modified.
        scores: by layer, of the weights' shapes; not NaN where active. Ties go to the first in the model's order.
        distribution: `global` (all layers compete, but the best weight of each stays, so that none is empty), or `erk`
            or `uniform` (each layer has its own density).
        density: remaining fraction of all entries, in (0, 1], rounded to a whole number of entries in the model or in
            each layer. If fewer are active, all of them stay.

    Returns:
        A bool tensor for each layer.

    Raises:
        NotANumber: for a score of NaN.
    """
    if distribution != "global":
        shapes = {name: tuple(weight.shape) for name, weight in masks.weights.items()}
        densities = layer_densities(distribution, shapes, density)
        new = {}
        for name, weight in masks.weights.items():
            count = min(round(densities[name] * weight.numel()), masks.active_by_layer[name])
            new[name] = highest(scores[name], masks[name], count)
        return new
    names = masks.layers
    protected = {name: highest(scores[name], masks[name], 1) for name in names}
    count = max(0, min(round(density * masks.size), masks.active) - len(names))
    flat = highest(
        torch.cat([scores[name].flatten() for name in names]),
        torch.cat([(masks[name] & ~protected[name]).flatten() for name in names]),
        count,
    )
    parts = flat.split([masks.weights[name].numel() for name in names])
    return {name: part.view_as(protected[name]) | protected[name] for name, part in zip(names, parts, strict=True)}
