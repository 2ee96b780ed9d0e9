"""Base class of methods that remove heads and neurons: keeps inactive units at zero, logs and saves them."""

from __future__ import annotations

from typing import Any

from torch import nn

from repro.methods.base import MethodPart
from repro.methods.weights.units import unit_groups


class StructuredUnits(MethodPart):
    """A method part that keeps the weights of inactive units at zero. Subclasses decide when and how units change.

    Args:
        model: a vision transformer; all its units are active initially.
    """

    def __init__(self, model: nn.Module) -> None:
        self.groups = list(unit_groups(model))
        self.exchanged = 0
        self.mask_updates = 0
        self._changed_at: int | None = None

    def after_step(self, update: int) -> None:
        """Keep inactive units at zero."""
        for group in self.groups:
            group.zero_inactive()

    def note_update(self, update: int, exchanged: int) -> None:
        """Record that units changed after `update`, and `exchanged` of them became active."""
        self._changed_at = update
        self.exchanged = exchanged
        self.mask_updates += 1

    @property
    def churn(self) -> float:
        """Share of the active units that became active in the last mask update."""
        return self.exchanged / sum(int(group.active.sum()) for group in self.groups)

    def constrain(self, model: nn.Module) -> None:
        """Set inactive units of a copy of the model to zero."""
        for group, copy in zip(self.groups, unit_groups(model), strict=True):
            copy.active = group.active
            copy.zero_inactive()

    def metrics(self) -> dict[str, float]:
        """Return the shares of heads and neurons that are and were active, churn and the number of mask updates."""
        return {"churn": self.churn, **self._shares(), "mask_updates": float(self.mask_updates)}

    def mask_history(self, update: int) -> dict[str, float] | None:
        """Return churn, shares active and ever active, and density by group, initially and after each mask update."""
        if update not in (0, self._changed_at):
            return None
        groups = {f"density/{group.name}": round(float(group.active.float().mean()), 6) for group in self.groups}
        return {"churn": self.churn, **self._shares(), **groups}

    def _shares(self) -> dict[str, float]:
        values = {}
        for kind in ("heads", "neurons"):
            groups = [group for group in self.groups if group.kind == kind]
            units = sum(len(group.active) for group in groups)
            values[f"{kind}_density"] = sum(int(group.active.sum()) for group in groups) / units
            values[f"{kind}_ever_active"] = sum(int(group.ever_active.sum()) for group in groups) / units
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return active units, units that were ever active, and counters."""
        return {
            "active": {group.name: group.active.clone() for group in self.groups},
            "ever_active": {group.name: group.ever_active.clone() for group in self.groups},
            "exchanged": self.exchanged,
            "mask_updates": self.mask_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for group in self.groups:
            # Active units are on the CPU, whatever device the checkpoint was loaded to.
            group.active = state["active"][group.name].cpu().clone()
            group.ever_active = state["ever_active"][group.name].cpu().clone()
        self.exchanged, self.mask_updates = state["exchanged"], state["mask_updates"]
