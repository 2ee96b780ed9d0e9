"""SViTE: unstructured sparse training that prunes and regrows connections.

Source: SViTE paper, section 3.1 and Algorithm 1; where the released code differs, the option is named `as_released`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from repro.counting.erk import layer_densities
from repro.counting.layers import is_masked
from repro.counting.schedule import UpdateSchedule
from repro.errors import UserError
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.selection import count_true, highest, lowest
from repro.seeding import generator


def exchange(mask: Tensor, prune_score: Tensor, grow_score: Tensor, fraction: float) -> Tensor:
    """Update a mask by the rule of the released code.

    The ceil(fraction * active) active entries with the smallest `prune_score` are pruned. Then as many inactive
    entries, which include those just pruned, are grown where `grow_score` is largest. Ties go to the first in memory
    order.

    Args:
        mask: active entries, bool, any shape; not modified.
        prune_score, grow_score: of the same shape.
        fraction: share of the active entries to exchange, in [0, 1].

    Returns:
        The new mask, with as many active entries as `mask`. The mask of a dense layer does not change.

    Raises:
        NotANumber: for a score of NaN.
    """
    active = count_true(mask)
    if active == mask.numel():
        return mask.clone()
    count = math.ceil(fraction * active)
    remaining = mask ^ lowest(prune_score, mask, count)
    return remaining | highest(grow_score, ~remaining, count)


class SViTE(MaskedWeights):
    """Exchanges a share of the active weights every `schedule.interval` updates.

    Args:
        model: a vision transformer; its prunable weights are masked from the start.
        sparsity: fraction of all prunable weights that is zero, in [0, 1).
        distribution: `erk`, `uniform`, or `global` (starts uniform, then layers compete for connections).
        prune: `magnitude` or `random`.
        growth: `gradient`, `momentum` (the optimizer's first moment) or `random`.
        decay: `as_paper` or `as_released`, see `UpdateSchedule.exchanged_fraction`.
        update_fraction: alpha, the share of active weights that the first update exchanges.
        schedule: when masks change.
        masks: `all` layers, or `patch_embedding_only`, as in the first public code with token selection: densities
            are computed for all layers, but masks of the others are never applied.
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
        masks: str = "all",
    ) -> None:
        weights = prunable_weights(model)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        densities = layer_densities(distribution, shapes, 1 - sparsity)
        masked = {name: weight for name, weight in weights.items() if is_masked(name, masks)}
        super().__init__(Masks.random(masked, densities, seed))
        self.distribution, self.prune, self.growth, self.decay = distribution, prune, growth, decay
        self.alpha, self.schedule, self.seed = update_fraction, schedule, seed
        self.optimizer: torch.optim.Optimizer | None = None

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep a reference to the optimizer: growth by momentum reads its first moment.

        Raises `UserError` if it has none.
        """
        if self.growth == "momentum" and not ("betas" in optimizer.defaults or optimizer.defaults.get("momentum")):
            raise UserError(
                "method.weights.growth=momentum: recipe.optimizer has no first moment; use adamw, or growth=gradient"
            )
        self.optimizer = optimizer

    def after_step(self, update: int) -> None:
        """Apply the masks, and exchange connections if an exchange is due.

        Such an update changes weights and masks, as in the released code; Algorithm 1 of the paper changes only masks.
        """
        self.masks.apply()
        if self.schedule.is_due(update):
            self._exchange(update)
            self.masks.apply()

    @torch.no_grad()
    def _exchange(self, update: int) -> None:
        fraction = self.schedule.exchanged_fraction(self.decay, self.alpha, update)
        changed = self._exchange_globally if self.distribution == "global" else self._exchange_by_layer
        exchanged = sum(self.masks.replace(name, mask) for name, mask in changed(update, fraction))
        self.note_update(update, exchanged)

    def _exchange_by_layer(self, update: int, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """Exchange within each layer. A dense layer has nothing to exchange."""
        for name, active in self.masks.active_by_layer.items():
            if active < self.masks.weights[name].numel():
                prune_score, grow_score = self._scores(name, update)
                yield name, exchange(self.masks[name], prune_score, grow_score, fraction)

    def _exchange_globally(self, update: int, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """Exchange over the concatenation of all layers, which compete for connections.

        The best weight of each layer always stays, because an empty layer would disconnect the network.
        """
        names = self.masks.layers
        scores = [self._scores(name, update) for name in names]
        protected = [highest(score, self.masks[name], 1) for name, (score, _) in zip(names, scores, strict=True)]
        new = exchange(
            torch.cat([self.masks[name].flatten() for name in names]),
            torch.cat(
                [
                    score.masked_fill(best, math.inf).flatten()
                    for (score, _), best in zip(scores, protected, strict=True)
                ]
            ),
            torch.cat([grow_score.flatten() for _, grow_score in scores]),
            fraction,
        )
        parts = new.split([self.masks.weights[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            yield name, part.view_as(self.masks.weights[name])

    def _scores(self, name: str, update: int) -> tuple[Tensor, Tensor]:
        """Scores of a layer's entries for pruning (lowest first) and for growth (highest first)."""
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
