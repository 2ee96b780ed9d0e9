"""What every method with removable units shares: inactive heads and neurons stay zero, are logged and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from repro.errors import UserError
from repro.parts import MethodPart
from repro.sparsity.units import unit_groups


class StructuredUnits(MethodPart):
    """A method part that keeps what inactive units own at zero; what differs is when and how units change.

    Args:
        model: a vision transformer; all its units are active at first.
        densities: share of each block's `heads` and `neurons` that is to be active, in (0, 1].

    Raises:
        UserError: for a block with fewer than one head or neuron left.
    """

    def __init__(self, model: nn.Module, densities: Mapping[str, float]) -> None:
        self.groups = list(unit_groups(model))
        self.exchanged = 0
        self.mask_updates = 0
        self._changed_at: int | None = None
        for group in self.groups:
            density, total = densities[group.kind], len(group.active)
            if total * density < 1 - 1e-9:
                raise UserError(f"{group.name}: {density:g} of {total} {group.kind} leaves none")

    def after_step(self, update: int) -> None:
        """Keep inactive units at zero."""
        for group in self.groups:
            group.zero_inactive()

    def note_update(self, update: int, exchanged: int) -> None:
        """Remember that units changed after `update`, and how many came in."""
        self._changed_at = update
        self.exchanged = exchanged
        self.mask_updates += 1

    @property
    def churn(self) -> float:
        """Share of the active units that the last mask update brought in."""
        return self.exchanged / sum(int(group.active.sum()) for group in self.groups)

    def constrain(self, model: nn.Module) -> None:
        """Set inactive units of another copy of the model to zero."""
        for group, copy in zip(self.groups, unit_groups(model), strict=True):
            copy.active = group.active
            copy.zero_inactive()

    def metrics(self) -> dict[str, float]:
        """Shares of heads and neurons active now and ever, and the share exchanged by the last mask update."""
        return {"churn": self.churn, **self._shares(), "mask_updates": float(self.mask_updates)}

    def mask_history(self, update: int) -> dict[str, float] | None:
        """After an update that changed units, and at 0: churn, shares active and ever active, density of each group."""
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
        """Active units, units ever active, counters."""
        return {
            "active": {group.name: group.active.clone() for group in self.groups},
            "ever_active": {group.name: group.ever_active.clone() for group in self.groups},
            "exchanged": self.exchanged,
            "mask_updates": self.mask_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for group in self.groups:
            # Which units are active is decided on the CPU, wherever a checkpoint was loaded to.
            group.active = state["active"][group.name].cpu().clone()
            group.ever_active = state["ever_active"][group.name].cpu().clone()
        self.exchanged, self.mask_updates = state["exchanged"], state["mask_updates"]
