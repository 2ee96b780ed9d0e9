"""What an evaluation kept: the share of patches left after each stage, over all of its images and ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repro.measure.keep_rates import names
from repro.tokens.dropping import DroppingBlocks


class KeepRates:
    """Counts what the blocks of one model keep, from one evaluation to the next."""

    def __init__(self, blocks: DroppingBlocks) -> None:
        self.blocks = blocks

    def begin(self) -> None:
        """Forget what was counted."""
        self.blocks.count()

    def measured(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Mean and mean square of the share left after each stage; `total` adds a tensor up over ranks.

        The mean square is what products of tokens with tokens cost by. A stage that was not open yet left what the one
        before it did.
        """
        blocks = self.blocks
        images = torch.tensor([[float(blocks.images_seen), 0.0]], dtype=torch.float64, device=blocks.seen.device)
        sums = total(torch.cat([blocks.seen, images])).tolist()
        count = sums.pop()[0]
        found: dict[str, float] = {}
        for stage, (linear, square) in enumerate(sums, start=1):
            source = min(stage, blocks.open_stages)
            if source != stage:
                linear, square = sums[source - 1]
            mean, mean_square = names(stage)
            found |= {mean: linear / count, mean_square: square / count}
        return found
