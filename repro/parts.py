"""What a method is to the training loop: parts with hooks. The loop knows these hooks and no method's name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MethodPart:
    """One half of a method: how weights become sparse, or which tokens are dropped.

    Created after the model and before the optimizer; may replace modules of the model. The loop calls, for each
    optimizer update `update` (counted from 1): `before_update`, then forward and backward of all micro-batches,
    then the optimizer, then `after_step` with the gradients of the whole global batch still in place.
    """

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Once, before the first update and before a state is taken back."""

    def before_update(self, update: int) -> None:
        """Before the first forward of an update: temperatures, recording of activations."""

    def after_step(self, update: int) -> None:
        """After the optimizer: keep masks applied, and change them where that is due."""

    def constrain(self, model: nn.Module) -> None:
        """Make another copy of the model (the EMA's) as sparse as the one that is trained, in place."""

    def metrics(self) -> dict[str, float]:
        """Numbers to log: densities, churn, temperatures. Names carry units; values are plain floats."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that chooses, as tensors and plain values, so that a resumed run goes on bit for bit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
