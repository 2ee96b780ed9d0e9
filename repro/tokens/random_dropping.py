"""Random token dropping: the baseline that knows nothing, at the same budget as a learned one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repro.tokens.budgeted import BudgetedDropper, BudgetedDropping


class RandomDropper(BudgetedDropper):
    """Every patch is as good as any other; drawn anew for each image and each pass, in evaluation too."""

    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """Uniform draws, from the generator of the values' device."""
        return torch.rand(valid.shape, device=values.device)


class RandomDropping(BudgetedDropping):
    """See `BudgetedDropping`."""

    dropper = RandomDropper
