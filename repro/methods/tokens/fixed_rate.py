"""Token dropping at fixed keep rates: after each stage every image keeps the same share of its patches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repro.methods.base import MethodPart
from repro.methods.tokens.keep_rate_meter import KeepRateMeter
from repro.models.token_dropping import Decision, Dropper, attach_droppers


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
        masked = scores.masked_fill(~valid, -torch.inf)
        # ONNX has no stable sort, but its TopK also prefers the first of equal values.
        if torch.compiler.is_exporting():
            order = masked.topk(masked.shape[1], dim=1).indices
        else:
            order = masked.argsort(dim=1, descending=True, stable=True)
        positions = torch.arange(order.shape[1], device=order.device).expand_as(order)
        ranks = torch.empty_like(order).scatter_(1, order, positions)
        return Decision(valid & (ranks < self.kept), scores)


class FixedRateDropping(MethodPart):
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
        self.rates = KeepRateMeter(attach_droppers(model, droppers, tokens - 1, execution))

    def before_evaluation(self) -> None:
        """Reset the keep-rate meter."""
        self.rates.reset()

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the keep rates of the evaluation."""
        return self.rates.measured(total)
