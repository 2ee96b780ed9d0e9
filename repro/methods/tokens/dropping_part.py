"""Base class of methods that drop tokens in stages: measures the keep rates of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from repro.counting.keep_rates import result_names
from repro.methods.base import MethodPart
from repro.models.token_dropping import Dropper, attach_droppers


class DroppingPart(MethodPart):
    """A method part that puts a dropper before each group of blocks of a timm vision transformer with a class token."""

    def __init__(self, model: Any, droppers: Sequence[Dropper], patches: int, execution: str) -> None:
        self.blocks = attach_droppers(model, droppers, patches, execution)

    def before_evaluation(self) -> None:
        """Start to measure keep rates."""
        self.blocks.reset_counts()

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean keep rate of each stage, and the mean of its square, which determines the cost of attention.

        Means are over all images and ranks. A stage that is not open has the keep rate of the stage before it.
        """
        blocks = self.blocks
        images = torch.tensor(
            [[float(blocks.image_count), 0.0]], dtype=torch.float64, device=blocks.keep_rate_sums.device
        )
        sums = total(torch.cat([blocks.keep_rate_sums, images])).tolist()
        count = sums.pop()[0]
        rates: dict[str, float] = {}
        for stage, (linear, square) in enumerate(sums, start=1):
            source = min(stage, blocks.open_stages)
            if source != stage:
                linear, square = sums[source - 1]
            mean, mean_square = result_names(stage)
            rates |= {mean: linear / count, mean_square: square / count}
        return rates
