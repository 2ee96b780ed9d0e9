"""Token dropping at a given budget: after each stage every image has the same share of its patches left."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repro.errors import UserError
from repro.parts import MethodPart
from repro.tokens.dropping import Decision, Dropper, attach_droppers
from repro.tokens.keep_rates import KeepRates


class BudgetedDropper(Dropper):
    """Keeps the `keep_rate * patches` patches of highest score; what a score is, subclasses say.

    The number is saved with the model: a run may take its rate from another run's record. A whole number, so that a
    model in bfloat16 keeps as many.
    """

    kept: Tensor

    def __init__(self, keep_rate: float, patches: int) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor(max(1, round(keep_rate * patches))))

    @abstractmethod
    def scores(self, values: Tensor, valid: Tensor, block: Any) -> Tensor:
        """(images, patches): the higher, the sooner a patch stays. Arguments as `Dropper.forward`."""

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """As many patches as the rate says, never fewer than one; ties go to the first."""
        scores = self.scores(values, valid, block)
        among = scores.masked_fill(~valid, -torch.inf)
        if torch.compiler.is_exporting():  # ONNX has no stable sort; of equals its TopK takes the first, too
            order = among.topk(among.shape[1], dim=1).indices
        else:
            order = among.argsort(dim=1, descending=True, stable=True)
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        ranks = torch.empty_like(order).scatter_(1, order, places)
        return Decision(valid & (ranks < self.kept), scores)  # the number stays on its device: nothing waits for it


class BudgetedDropping(MethodPart):
    """One kind of dropper before groups of blocks; the whole model is fine-tuned with it.

    Args:
        model: a timm vision transformer with one class token.
        tokens: of one image, the class token among them.
        keep_rates: the share of patches left after each stage, falling, each in (0, 1].
        execution: see `repro.tokens.execution`.

    Raises `UserError` for rates that rise or leave (0, 1], or more stages than blocks.
    """

    dropper: Callable[[float, int], BudgetedDropper]

    def __init__(self, model: Any, *, tokens: int, keep_rates: list[float], execution: str, **_: Any) -> None:
        if any(not 0 < rate <= 1 for rate in keep_rates) or sorted(keep_rates, reverse=True) != list(keep_rates):
            raise UserError(f"method.tokens.keep_rates={list(keep_rates)}: must fall, each above 0 and at most 1")
        if not 1 <= len(keep_rates) <= len(model.blocks):
            raise UserError(f"method.tokens.keep_rates: {len(keep_rates)} stages for {len(model.blocks)} blocks")
        made = [type(self).dropper(rate, tokens - 1) for rate in keep_rates]
        self.rates = KeepRates(attach_droppers(model, made, tokens - 1, execution))

    def before_evaluation(self) -> None:
        """Begin to count what is kept."""
        self.rates.begin()

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Keep rates of the evaluation."""
        return self.rates.measured(total)
