"""Base class of methods that mask weights: applies, logs and saves the masks."""

from __future__ import annotations

from typing import Any

from torch import nn

from repro.methods.base import MethodPart
from repro.methods.weights.masks import Masks


class MaskedWeights(MethodPart):
    """A method part that keeps weights at zero outside `masks`. Subclasses decide when and how masks change."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.exchanged = 0
        self.mask_updates = 0
        self._changed_at: int | None = None

    def after_step(self, update: int) -> None:
        """Apply the masks."""
        self.masks.apply()

    def note_update(self, update: int, exchanged: int) -> None:
        """Record that the masks changed after `update`, by `exchanged` entries that became active."""
        self._changed_at = update
        self.exchanged = exchanged
        self.mask_updates += 1

    @property
    def churn(self) -> float:
        """Share of the active weights that became active in the last mask update."""
        return self.exchanged / max(1, self.masks.active)

    def constrain(self, model: nn.Module) -> None:
        """Apply the masks to a copy of the model."""
        self.masks.apply_to(model)

    def layer_density(self) -> dict[str, float]:
        """Return the density of each masked layer."""
        return self.masks.layer_density()

    def metrics(self) -> dict[str, float]:
        """Return density, share of weights that were ever active, churn and the number of mask updates."""
        return {
            "density": self.masks.density,
            "ever_active": self.masks.ever_active,
            "churn": self.churn,
            "mask_updates": float(self.mask_updates),
        }

    def mask_history(self, update: int) -> dict[str, float] | None:
        """Return churn, density, share ever active and density by layer, initially and after each mask update."""
        if update not in (0, self._changed_at):
            return None
        layers = {f"density/{name}": round(value, 6) for name, value in self.layer_density().items()}
        return {"churn": self.churn, "density": self.masks.density, "ever_active": self.masks.ever_active, **layers}

    def state_dict(self) -> dict[str, Any]:
        """Return masks and counters."""
        return {"masks": self.masks.state_dict(), "exchanged": self.exchanged, "mask_updates": self.mask_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.masks.load_state_dict(state["masks"])
        self.exchanged, self.mask_updates = state["exchanged"], state["mask_updates"]
