"""Pruning to a density by a score: which weights stay, over the whole model or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.errors import UserError
from repro.sparsity.erk import layer_densities
from repro.sparsity.masks import Masks
from repro.sparsity.selection import highest


@torch.no_grad()
def prune_to(masks: Masks, scores: Mapping[str, Tensor], distribution: str, density: float) -> dict[str, Tensor]:
    """The masks that keep, of what is active, the weights of highest score. Nothing becomes active.

    Args:
        masks: what is active now. Not changed.
        scores: by layer, of the weights' shapes; not NaN where active. Ties: the first in the model's order stay.
        distribution: `global` (all layers compete; the best weight of each stays whatever it is worth, so that no layer
            is cut off), `erk` or `uniform` (each layer keeps its share).
        density: fraction of all entries that stay, in (0, 1]; rounded to a whole number of entries, of each layer
            where it has a share of its own. Where fewer than that are active, all of them stay.

    Returns:
        A bool tensor for each layer.

    Raises:
        UserError: for a density outside (0, 1].
        NotANumber: for a score that is NaN.
    """
    if not 0 < density <= 1:
        raise UserError(f"density={density:g}: must be in (0, 1]")
    if distribution != "global":
        shapes = {name: tuple(weight.shape) for name, weight in masks.weights.items()}
        densities = layer_densities(distribution, shapes, density)
        kept = {}
        for name, weight in masks.weights.items():
            count = min(round(densities[name] * weight.numel()), masks.active_by_layer[name])
            kept[name] = highest(scores[name], masks[name], count)
        return kept
    names = masks.layers
    spared = {name: highest(scores[name], masks[name], 1) for name in names}
    count = max(0, min(round(density * masks.size), masks.active) - len(names))
    flat = highest(
        torch.cat([scores[name].flatten() for name in names]),
        torch.cat([(masks[name] & ~spared[name]).flatten() for name in names]),
        count,
    )
    parts = flat.split([masks.weights[name].numel() for name in names])
    return {name: part.view_as(spared[name]) | spared[name] for name, part in zip(names, parts, strict=True)}


def check_scoring_batches(batches: int) -> None:
    """Raise `UserError` for a number of batches that nothing can be scored with."""
    if batches < 1:
        raise UserError(f"method.weights.scoring_batches={batches}: must be at least 1")
