"""What a method is to the training loop: parts with hooks. The loop knows these hooks and no method's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Backward = Callable[[int], None]


class MethodPart:
    """One half of a method: how weights become sparse, or which tokens are dropped.

    Created after the model and before the optimizer; may replace modules of the model. In a run that begins (not one
    that goes on), the loop calls `prepare` once. Then, for each optimizer update `update` (counted from 1):
    `before_update`, forward and backward of all micro-batches, `after_backward`, clipping, the optimizer, `after_step`
    with the gradients of the whole global batch still in place, and `mask_history`.
    """

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Once, before the first update and before a state is taken back."""

    def prepare(self, backward: Backward) -> None:
        """Once, before update 1: make the weights given sparse, in one shot, by what they are or by what they do.

        `backward(n)` leaves in every parameter's `grad` the mean, over n global batches of the training data, of the
        gradient that an update would use: averaged over micro-batches and ranks, in the parameter's precision. No
        weight is changed by it.
        """

    def before_update(self, update: int) -> None:
        """Before the first forward of an update: temperatures, recording of activations."""

    def objective(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, criterion: nn.Module
    ) -> Tensor | None:
        """The loss of a micro-batch, where it is not `criterion(forward(images), labels)`; None where it is.

        `forward` is the model as it is trained, on all ranks; it may be called once. Gradients reach the parameters
        that have one: a part may say with `requires_grad_`, in `before_update`, which those are.
        """
        return None

    def after_backward(self, update: int) -> None:
        """With the gradients of the whole global batch, averaged over ranks, before they are clipped and used.

        A part whose weights in the model are not those that the optimizer moves puts the latter in their place here,
        their gradients with them, and the former back in `after_step`.
        """

    def after_step(self, update: int) -> None:
        """After the optimizer: keep masks applied, and change them where that is due."""

    def constrain(self, model: nn.Module) -> None:
        """Make another copy of the model (the EMA's) as sparse as the one that is trained, in place."""

    def is_at_target(self, update: int) -> bool:
        """Whether the model after `update` is as sparse as it is to be: others are never the best of a run."""
        return True

    def before_evaluation(self) -> None:
        """Before the model is evaluated on this rank's share of the test images."""

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """After it: what it says beside accuracies. `total` adds a tensor up over ranks; all must call it."""
        return {}

    def cost_as_counted(self) -> None:
        """Make an untrained model cost what its row is planned with, where costs follow from what is learnt."""

    def layer_density(self) -> dict[str, float]:
        """The density of each masked layer, by its name, as it is now."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Numbers to log: densities, churn, temperatures. Names carry units; values are plain floats."""
        return {}

    def mask_history(self, update: int) -> dict[str, float] | None:
        """What to write down of the masks after `update` (0: at the start); None where they have not changed."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that chooses, as tensors and plain values, so that a resumed run goes on bit for bit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
