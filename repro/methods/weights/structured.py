"""Base class of methods that remove heads and neurons: keeps inactive units at zero, logs and saves them."""

from __future__ import annotations

from typing import Any

from torch import nn

from repro.methods.weights.sparse_part import SparsePart
from repro.methods.weights.units import unit_groups


class StructuredUnits(SparsePart):
    """A method part that keeps the weights of inactive units at zero. Subclasses decide when and how units change.

    Args:
        model: a vision transformer; all its units are active initially.
    """

    def __init__(self, model: nn.Module) -> None:
        self.groups = list(unit_groups(model))

    def after_step(self, update: int) -> None:
        """Keep inactive units at zero."""
        for group in self.groups:
            group.zero_inactive()

    def constrain(self, model: nn.Module) -> None:
        """Set inactive units of a copy of the model to zero."""
        for group, copy in zip(self.groups, unit_groups(model), strict=True):
            copy.active = group.active
            copy.zero_inactive()

    @property
    def active(self) -> int:
        """Number of active heads and neurons."""
        return sum(int(group.active.sum()) for group in self.groups)

    def densities(self) -> dict[str, float]:
        """Return the active share of the heads and of the neurons of each block."""
        return {group.name: float(group.active.float().mean()) for group in self.groups}

    def shares(self) -> dict[str, float]:
        """Return the shares of heads and of neurons that are and were active."""
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
            **super().state_dict(),
            "active": {group.name: group.active.clone() for group in self.groups},
            "ever_active": {group.name: group.ever_active.clone() for group in self.groups},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        for group in self.groups:
            # Active units are on the CPU, whatever device the checkpoint was loaded to.
            group.active = state["active"][group.name].cpu().clone()
            group.ever_active = state["ever_active"][group.name].cpu().clone()
