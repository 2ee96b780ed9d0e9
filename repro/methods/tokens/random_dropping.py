"""Random token dropping at fixed keep rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.methods.tokens.fixed_rate import FixedRateDropper, FixedRateDropping


class RandomDropper(FixedRateDropper):
    """Keeps random patches, drawn for each image in each forward pass, also in evaluation."""

    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """Draw uniform scores from the generator of the values' device."""
        return torch.rand(valid.shape, device=values.device)


class RandomDropping(FixedRateDropping):
    """`FixedRateDropping` of random patches."""

    dropper = RandomDropper
