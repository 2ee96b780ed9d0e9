"""The interface between a method and the training loop: parts with hooks. The loop refers to no method by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.class_names import load_class

Backward = Callable[[int], None]


class MethodPart:
    """One half of a method: how weights become sparse, or which tokens are dropped.

    A part is created after the model and before the optimizer, and may replace modules of the model. At the start of a
    run, but not when it resumes, the loop calls `prepare` once. For each optimizer update `update`, counted from 1, it
    then calls `before_update`, runs forward and backward for all micro-batches, calls `after_backward`, clips the
    gradients, steps the optimizer, and calls `after_step` (with the gradients of the whole global batch still in place)
    and `mask_history`.
    """

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Called once, before the first update and before a state is loaded."""

    def prepare(self, backward: Backward) -> None:
        """Prune the initial weights in one shot. Called once, before update 1.

        `backward(n)` sets every parameter's `grad` to the mean gradient over n global batches of training data, as an
        update would use it: averaged over micro-batches and ranks, in the parameter's precision. It changes no weight.
        """

    def before_update(self, update: int) -> None:
        """Called before the first forward pass of an update."""

    def objective(
        self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, criterion: nn.Module
    ) -> Tensor | None:
        """Return the loss of a micro-batch, or None for the default, `criterion(forward(images), labels)`.

        `forward` is the model as it is trained, on all ranks; it may be called only once. A part chooses the parameters
        that receive gradients with `requires_grad_`, in `before_update`.
        """
        return None

    def after_backward(self, update: int) -> None:
        """Called with the gradients of the whole global batch, averaged over ranks, before clipping.

        A part whose optimized weights are not the model's weights swaps them in here with their gradients, and swaps
        the model's weights back in `after_step`.
        """

    def after_step(self, update: int) -> None:
        """Called after the optimizer: apply masks, and update them if an update is due."""

    def constrain(self, model: nn.Module) -> None:
        """Make a copy of the model (its EMA) as sparse as the trained one, in place."""

    def is_at_target(self, update: int) -> bool:
        """Whether the model after `update` has its final sparsity. Only such models count for the best epoch."""
        return True

    def before_evaluation(self) -> None:
        """Called before the model is evaluated on this rank's share of the test images."""

    def evaluation(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return results of the evaluation besides accuracies. `total` sums a tensor over ranks; all must call it."""
        return {}

    def apply_planned_cost(self) -> None:
        """Give an untrained model the planned cost of its row, if training determines the cost."""

    def layer_density(self) -> dict[str, float]:
        """Return the current density of each masked layer, by name."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Return values to log (densities, churn, temperatures), with units in their names."""
        return {}

    def mask_history(self, update: int) -> dict[str, float] | None:
        """Return what to record about the masks after `update` (0: initially); None if they have not changed."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which a resumed run continues bit for bit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def attach(arguments: Sequence[tuple[str, Mapping[str, Any]]], model: nn.Module) -> list[MethodPart]:
    """Build parts from their classes and arguments, and attach them to `model` in order.

    Raises `UserError` for a class that does not exist or is not a `MethodPart`.
    """
    return [load_class(target, MethodPart)(model, **options) for target, options in arguments]  # type: ignore[call-arg]
