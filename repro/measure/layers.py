"""A whole backbone as it is counted: its prunable weights, and what else it has and does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro.layer import Layer

if TYPE_CHECKING:
    from repro.geometry import Geometry

__all__ = ["Layer", "Whole", "whole"]


@dataclass(frozen=True)
class Whole:
    """What a backbone consists of.

    Attributes:
        layers: its prunable weights, in the model's order.
        vector_params: parameters that are never sparse: biases, norms, class token, position embedding.
        attention_macs: products of activations with each other (QK^T and AV), for one image.
    """

    layers: tuple[Layer, ...]
    vector_params: int
    attention_macs: int

    @property
    def params(self) -> int:
        """All parameters."""
        return self.vector_params + sum(layer.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """All MACs of one image."""
        return self.attention_macs + sum(layer.size * layer.uses for layer in self.layers)


def whole(model: Geometry, tokens: int | None = None) -> Whole:
    """A backbone, dense; one with tokens goes on with `tokens` of them after the embedding (None: all)."""
    going_on = model.tokens if tokens is None else tokens
    return Whole(tuple(model.layers(going_on)), model.vector_params, model.attention_macs(going_on))
