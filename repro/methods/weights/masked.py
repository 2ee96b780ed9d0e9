"""Base class of methods that mask weights: applies, logs and saves the masks."""

from __future__ import annotations

from typing import Any

from torch import nn

from repro.methods.weights.masks import Masks
from repro.methods.weights.sparse_part import SparsePart


class MaskedWeights(SparsePart):
    """A method part that keeps weights at zero outside `masks`. Subclasses decide when and how masks change."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks

    def after_step(self, update: int) -> None:
        """Apply the masks."""
        self.masks.apply()

    def constrain(self, model: nn.Module) -> None:
        """Apply the masks to a copy of the model."""
        self.masks.apply_to(model)

    @property
    def active(self) -> int:
        """Number of active weights."""
        return self.masks.active

    def shares(self) -> dict[str, float]:
        """Return the density, and the share of weights that were ever active."""
        return {"density": self.masks.density, "ever_active": self.masks.ever_active}

    def densities(self) -> dict[str, float]:
        """Return the density of each masked layer."""
        return self.masks.layer_density()

    def layer_density(self) -> dict[str, float]:
        """Return the density of each masked layer."""
        return self.densities()

    def state_dict(self) -> dict[str, Any]:
        """Return masks and counters."""
        return {**super().state_dict(), "masks": self.masks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.masks.load_state_dict(state["masks"])
