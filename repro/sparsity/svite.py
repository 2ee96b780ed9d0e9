"""SViTE: unstructured sparse training that moves its connections while it trains.

Source: SViTE paper, section 3.1 and Algorithm 1; where the released code differs, the option is named `as_released`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.schedule import UpdateSchedule
from repro.seeding import generator
from repro.sparsity.decay import update_fraction
from repro.sparsity.erk import layer_densities
from repro.sparsity.masked import MaskedWeights
from repro.sparsity.masks import Masks, prunable_weights
from repro.sparsity.selection import count_true, highest, lowest


def prune_and_grow(weight: Tensor, grad: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """One mask update of a layer, by the released code's rule.

    The ceil(fraction * active) active weights of least magnitude are pruned; then as many of all entries inactive by
    then, those just pruned among them, are grown where |grad| is largest. Ties go to the first in memory order.

    Args:
        weight: values of the layer, any shape.
        grad: gradient of the loss by the layer's weight, same shape; finite.
        mask: bool, same shape: the active entries. Not changed.
        fraction: share of the active entries to exchange, in [0, 1].

    Returns:
        The new mask, bool, with as many active entries as `mask`. A fully dense layer is left alone.

    Raises:
        ValueError: for a fraction outside [0, 1], a mask that is not bool, or a score that is not a number.
    """
    return exchange(mask, weight.abs(), grad.abs(), fraction)


def exchange(mask: Tensor, prune_score: Tensor, grow_score: Tensor, fraction: float) -> Tensor:
    """`prune_and_grow` for any two scores: the active of least `prune_score` leave, the highest `grow_score` come."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: must be in [0, 1]")
    if mask.dtype is not torch.bool:
        raise ValueError(f"a mask of {mask.dtype}: must be bool")
    active = count_true(mask)
    if active == mask.numel():
        return mask.clone()
    count = math.ceil(fraction * active)
    kept = mask ^ lowest(prune_score, mask, count)  # what is pruned is of the mask
    return kept | highest(grow_score, ~kept, count)


class SViTE(MaskedWeights):
    """Keeps a model's weights sparse and exchanges part of the active ones every `schedule.interval` updates.

    Args:
        model: a vision transformer; its prunable weights get masks at once.
        sparsity: fraction of all prunable weights that is zero, in [0, 1).
        distribution: `erk`, `uniform`, or `global` (starts uniform; layers then compete for connections).
        prune: `magnitude` or `random`.
        growth: `gradient`, `momentum` (the optimizer's first moment) or `random`.
        decay: `as_paper` or `as_released`, see `repro.sparsity.decay`.
        update_fraction: alpha, the share of active weights exchanged at first.
        schedule: when masks change.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        distribution: str,
        prune: str,
        growth: str,
        decay: str,
        update_fraction: float,
        schedule: UpdateSchedule,
        seed: int,
    ) -> None:
        weights = prunable_weights(model)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        super().__init__(Masks.random(weights, layer_densities(distribution, shapes, 1 - sparsity), seed))
        self.distribution, self.prune, self.growth, self.decay = distribution, prune, growth, decay
        self.alpha, self.schedule, self.seed = update_fraction, schedule, seed
        self.optimizer: torch.optim.Optimizer | None = None

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the optimizer: growth by momentum reads its first moment.

        Raises `UserError` where there will be none.
        """
        if self.growth == "momentum" and not ("betas" in optimizer.defaults or optimizer.defaults.get("momentum")):
            raise UserError(
                "method.weights.growth=momentum: recipe.optimizer keeps no first moment; take adamw, or gradient"
            )
        self.optimizer = optimizer

    def after_step(self, update: int) -> None:
        """Keep the masks applied; exchange connections where it is due.

        Both weights and masks change in such an update, as in the released code (the paper's Algorithm 1 changes one).
        """
        self.masks.apply()
        if self.schedule.is_due(update):
            self._exchange(update)
            self.masks.apply()

    @torch.no_grad()
    def _exchange(self, update: int) -> None:
        fraction = update_fraction(self.decay, self.alpha, update, self.schedule)
        changed = self._exchange_together if self.distribution == "global" else self._exchange_by_layer
        exchanged = sum(self.masks.replace(name, mask) for name, mask in changed(update, fraction))
        self.note_update(update, exchanged)

    def _exchange_by_layer(self, update: int, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """Each layer keeps its density. One that is fully dense has nothing to exchange and is not looked at."""
        for name, active in self.masks.active_by_layer.items():
            if active < self.masks.weights[name].numel():
                prune_score, grow_score = self._scores(name, update)
                yield name, exchange(self.masks[name], prune_score, grow_score, fraction)

    def _exchange_together(self, update: int, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """All layers compete: one exchange over their concatenation.

        The best weight of each stays, whatever it is worth: a layer that lost its last one would cut the network.
        """
        names = self.masks.layers
        scores = [self._scores(name, update) for name in names]
        spared = [highest(score, self.masks[name], 1) for name, (score, _) in zip(names, scores, strict=True)]
        new = exchange(
            torch.cat([self.masks[name].flatten() for name in names]),
            torch.cat(
                [score.masked_fill(best, math.inf).flatten() for (score, _), best in zip(scores, spared, strict=True)]
            ),
            torch.cat([grow_score.flatten() for _, grow_score in scores]),
            fraction,
        )
        parts = new.split([self.masks.weights[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            yield name, part.view_as(self.masks.weights[name])

    def _scores(self, name: str, update: int) -> tuple[Tensor, Tensor]:
        """What an entry is worth keeping, and worth growing."""
        weight = self.masks.weights[name]
        prune_score = weight.abs() if self.prune == "magnitude" else self._random(name, update, "prune")
        if self.growth == "random":
            return prune_score, self._random(name, update, "grow")
        if self.growth == "momentum":
            return prune_score, self._first_moment(weight).abs()
        assert weight.grad is not None, f"{name} has no gradient"
        return prune_score, weight.grad.abs()

    def _first_moment(self, weight: nn.Parameter) -> Tensor:
        assert self.optimizer is not None
        state = self.optimizer.state[weight]
        return torch.as_tensor(state["exp_avg"] if "exp_avg" in state else state["momentum_buffer"])

    def _random(self, name: str, update: int, purpose: str) -> Tensor:
        weight = self.masks.weights[name]
        draw = torch.rand(weight.shape, generator=generator(purpose, self.seed, name, update))
        return draw.to(weight.device)
