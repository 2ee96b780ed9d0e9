"""Masks over the weights of a model: which entries may be nonzero, and which ever were.

Both facts share one byte a weight, so that knowing which weights were ever active costs no memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.seeding import generator
from repro.sparsity.selection import count_true

ACTIVE, EVER_ACTIVE = 1, 2  # bits of a mask's byte


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of 2 or 4 dimensions of linear layers and convolutions, by layer name, in the model's order.

    Patch embedding, qkv, proj, fc1, fc2 and head of a vision transformer; not biases, norms, tokens, nor a module that
    declares `keep_dense` (a token selector).
    """
    kept_dense = tuple(f"{name}." for name, module in model.named_modules() if getattr(module, "keep_dense", False))
    return {
        name: cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not f"{name}.".startswith(kept_dense or "\0")
    }


class Masks:
    """One byte for each prunable weight. The weights they belong to are kept zero where a mask is false.

    Args:
        weights: the weights, by layer.
        masks: bool, by layer, of the weights' shapes: what is active at first; all of it when None.
        may_be_empty: whether a layer may have no active weight.

    Raises:
        UserError: for a layer without an active weight that must have one.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor] | None = None,
        *,
        may_be_empty: bool = False,
    ) -> None:
        self.weights = dict(weights)
        self._may_be_empty = may_be_empty
        self._bytes = {
            name: torch.full(weight.shape, ACTIVE | EVER_ACTIVE, dtype=torch.uint8, device=weight.device)
            for name, weight in self.weights.items()
        }
        self._count()
        if masks is not None:
            self.restart(masks)

    @classmethod
    def random(cls, weights: Mapping[str, nn.Parameter], densities: Mapping[str, float], seed: int) -> Masks:
        """Each entry drawn with its layer's density, from the run's seed.

        Raises `UserError` for a layer that would keep no weight at all.
        """
        masks = {}
        for name, weight in weights.items():
            if densities[name] >= 1:
                masks[name] = torch.ones(weight.shape, dtype=torch.bool)
            else:
                draw = torch.rand(weight.shape, generator=generator("mask", seed, name))
                masks[name] = draw < densities[name]
        return cls(weights, masks)

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in the model's order."""
        return list(self.weights)

    def __getitem__(self, name: str) -> Tensor:
        """The active entries of a layer: a bool tensor of its own."""
        return (self._bytes[name] & ACTIVE).view(torch.bool)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights outside the masks to zero, in place."""
        self._apply(self.weights)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """The same for another copy of the model."""
        self._apply(prunable_weights(model))

    def _apply(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Layer by layer through one small buffer: the factors are then read from the cache, not from memory."""
        sparse = [name for name, active in self.active_by_layer.items() if active < self.weights[name].numel()]
        if not sparse:
            return
        largest = max(self._bytes[name].numel() for name in sparse)
        buffer = torch.empty(largest, dtype=torch.uint8, device=self._bytes[sparse[0]].device)
        for name in sparse:
            states = self._bytes[name]
            factor = torch.bitwise_and(states, ACTIVE, out=buffer[: states.numel()].view(states.shape))
            weights[name].data.mul_(factor)

    @torch.no_grad()
    def replace(self, name: str, mask: Tensor) -> int:
        """Take a new mask for one layer; returns how many entries became active. The weights are left as they are.

        Raises `UserError` for a mask without an active weight.
        """
        states = self._bytes[name]
        mask = mask.to(states.device)
        grown = count_true(mask & ~self[name])
        new = mask.view(torch.uint8)
        states.bitwise_and_(EVER_ACTIVE).bitwise_or_(new).bitwise_or_(new << 1)
        self._count_layer(name)
        if not self.active_by_layer[name] and not self._may_be_empty:
            raise UserError(
                f"layer {name} with {mask.numel()} weights keeps none; lower method.sparsity or choose another "
                "method.weights.distribution"
            )
        return grown

    def restart(self, masks: Mapping[str, Tensor]) -> None:
        """Take these as the masks that training starts with: nothing else was ever active."""
        for name in self.weights:
            self._bytes[name].zero_()
            self.replace(name, masks[name])
        self.apply()

    @property
    def active(self) -> int:
        """Number of active entries."""
        return sum(self.active_by_layer.values())

    @property
    def size(self) -> int:
        """Number of all entries."""
        return sum(weight.numel() for weight in self.weights.values())

    @property
    def density(self) -> float:
        """Active entries over all entries."""
        return self.active / self.size

    @property
    def ever_active(self) -> float:
        """Share of all entries that are or were active: the fired weights."""
        return sum(self._ever_active_by_layer.values()) / self.size

    def layer_density(self) -> dict[str, float]:
        """Active entries over all entries, by layer."""
        return {name: active / math.prod(self.weights[name].shape) for name, active in self.active_by_layer.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the bytes, by layer."""
        return {name: states.cpu().clone() for name, states in self._bytes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        for name, states in state.items():
            self._bytes[name].copy_(states)
        self._count()

    def _count(self) -> None:
        self.active_by_layer: dict[str, int] = {}
        self._ever_active_by_layer: dict[str, int] = {}
        for name in self.weights:
            self._count_layer(name)

    def _count_layer(self, name: str) -> None:
        """Counted when masks change: to count at every log entry would cost more than the entry."""
        states = self._bytes[name]
        self.active_by_layer[name] = count_true(self[name])
        self._ever_active_by_layer[name] = count_true(states >= EVER_ACTIVE)
