"""The keep rates of an evaluation: the share of patches kept after each stage, over all images and ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repro.counting.keep_rates import result_names
from repro.models.token_dropping import DroppingBlocks


class KeepRateMeter:
    """Measures the keep rates of the blocks of one model."""

    def __init__(self, blocks: DroppingBlocks) -> None:
        self.blocks = blocks

    def reset(self) -> None:
        """Start a new measurement."""
        self.blocks.reset_counts()

    def measured(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean keep rate of each stage, and the mean of its square, which determines the cost of attention.

        `total` sums a tensor over ranks. A stage that is not open has the keep rate of the stage before it.
        """
        blocks = self.blocks
        images = torch.tensor([[float(blocks.images_seen), 0.0]], dtype=torch.float64, device=blocks.seen.device)
        sums = total(torch.cat([blocks.seen, images])).tolist()
        count = sums.pop()[0]
        rates: dict[str, float] = {}
        for stage, (linear, square) in enumerate(sums, start=1):
            source = min(stage, blocks.open_stages)
            if source != stage:
                linear, square = sums[source - 1]
            mean, mean_square = result_names(stage)
            rates |= {mean: linear / count, mean_square: square / count}
        return rates
