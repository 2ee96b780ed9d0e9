"""Token dropping at fixed keep rates: after each stage every image keeps the same share of its patches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repro.methods.tokens.dropping_part import DroppingPart
from repro.models.token_dropping import Decision, Dropper, keep_best


class FixedRateDropper(Dropper):
    """Keeps the `keep_rate * patches` patches with the highest scores, which subclasses compute.

    The count is a buffer of the model, because the rate may come from another run's record. It is an integer, so that
    a cast to bfloat16 does not round it.
    """

    kept: Tensor

    def __init__(self, keep_rate: float, patches: int) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor(max(1, round(keep_rate * patches))))

    @abstractmethod
    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """Return scores of patches, (images, patches); the highest are kept. Arguments as in `Dropper.forward`."""

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """Keep the patches with the highest scores, and the first ones of equal scores."""
        scores = self.scores(values, valid, block)
        return Decision(keep_best(scores, valid, self.kept), scores)


class FixedRateDropping(DroppingPart):
    """Puts a dropper before each group of blocks; the whole model is fine-tuned with it.

    Args:
        model: a timm vision transformer with one class token.
        tokens: number of tokens of one image, class token included.
        keep_rates: share of patches kept after each stage, not increasing, in (0, 1].
        execution: see `repro.models.token_execution`.
    """

    dropper: Callable[[float, int], FixedRateDropper]

    def __init__(self, model: Any, *, tokens: int, keep_rates: list[float], execution: str, **_: Any) -> None:
        droppers = [type(self).dropper(rate, tokens - 1) for rate in keep_rates]
        super().__init__(model, droppers, tokens - 1, execution)
