"""Base class of methods that make weights sparse: counts what mask updates exchange, and logs the remaining shares."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from repro.methods.base import MethodPart


class SparsePart(MethodPart):
    """A method part whose masks on weights, or on heads and neurons, change in mask updates."""

    exchanged = 0
    mask_updates = 0
    _changed_at: int | None = None

    @property
    @abstractmethod
    def active(self) -> int:
        """Number of active weights, or of active heads and neurons."""

    @abstractmethod
    def shares(self) -> dict[str, float]:
        """Return the shares that are and were active, by the names under which they are logged."""

    @abstractmethod
    def densities(self) -> dict[str, float]:
        """Return the active share of each layer, or of the units of each block."""

    def note_update(self, update: int, exchanged: int) -> None:
        """Record that masks changed after `update`, by `exchanged` weights or units that became active."""
        self._changed_at = update
        self.exchanged = exchanged
        self.mask_updates += 1

    @property
    def churn(self) -> float:
        """Share of the active weights or units that became active in the last mask update."""
        return self.exchanged / max(1, self.active)

    def metrics(self) -> dict[str, float]:
        """Return shares active and ever active, churn and the number of mask updates."""
        return {**self.shares(), "churn": self.churn, "mask_updates": float(self.mask_updates)}

    def mask_history(self, update: int) -> dict[str, float] | None:
        """Return churn, shares active and ever active, and densities, initially and after each mask update."""
        if update not in (0, self._changed_at):
            return None
        densities = {f"density/{name}": round(value, 6) for name, value in self.densities().items()}
        return {"churn": self.churn, **self.shares(), **densities}

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"exchanged": self.exchanged, "mask_updates": self.mask_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.exchanged, self.mask_updates = state["exchanged"], state["mask_updates"]
