"""What every method with masked weights shares: masks stay applied, are logged, saved and taken back."""

from __future__ import annotations

from typing import Any

from torch import nn

from repro.parts import MethodPart
from repro.sparsity.masks import Masks


class MaskedWeights(MethodPart):
    """A method part whose weights are kept zero outside `masks`; what differs is when and how masks change."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.exchanged = 0
        self.mask_updates = 0
        self._changed_at: int | None = None

    def after_step(self, update: int) -> None:
        """Keep the masks applied."""
        self.masks.apply()

    def note_update(self, update: int, exchanged: int) -> None:
        """Remember that the masks changed after `update`, and how many entries came in."""
        self._changed_at = update
        self.exchanged = exchanged
        self.mask_updates += 1

    @property
    def churn(self) -> float:
        """Share of the active weights that the last mask update brought in."""
        return self.exchanged / max(1, self.masks.active)

    def constrain(self, model: nn.Module) -> None:
        """Apply the masks to another copy of the model."""
        self.masks.apply_to(model)

    def layer_density(self) -> dict[str, float]:
        """The density of each masked layer, by its name, as it is now."""
        return self.masks.layer_density()

    def metrics(self) -> dict[str, float]:
        """Density, share of weights that were ever active, and what the last mask update brought in."""
        return {
            "density": self.masks.density,
            "ever_active": self.masks.ever_active,
            "churn": self.churn,
            "mask_updates": float(self.mask_updates),
        }

    def mask_history(self, update: int) -> dict[str, float] | None:
        """After an update that changed the masks, and at 0: churn, density, ever active, density of each layer."""
        if update not in (0, self._changed_at):
            return None
        layers = {f"density/{name}": round(value, 6) for name, value in self.layer_density().items()}
        return {"churn": self.churn, "density": self.masks.density, "ever_active": self.masks.ever_active, **layers}

    def state_dict(self) -> dict[str, Any]:
        """Masks and counters."""
        return {"masks": self.masks.state_dict(), "exchanged": self.exchanged, "mask_updates": self.mask_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.masks.load_state_dict(state["masks"])
        self.exchanged, self.mask_updates = state["exchanged"], state["mask_updates"]
