"""Masks on the weights of a model: which entries are active, and which ever were.

Both bits share one byte per weight, so the history needs no extra memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.methods.weights.selection import count_true
from repro.seeding import generator

ACTIVE, EVER_ACTIVE = 1, 2  # bits of a mask's byte
_FEW_WEIGHTS = 2**19  # up to this size, masks are also kept as floats, two megabytes: one call applies all of them


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of linear layers and convolutions, by layer name, in the model's order.

    In a vision transformer, these are patch embedding, qkv, proj, fc1, fc2 and head. Biases, norms, tokens and modules
    with `keep_dense` (token selectors) are excluded.
    """
    dense_modules = tuple(f"{name}." for name, module in model.named_modules() if getattr(module, "keep_dense", False))
    return {
        name: cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and not f"{name}.".startswith(dense_modules or "\0")
    }


class Masks:
    """Bool masks of layers, with one byte per weight.

    Args:
        weights: the weights, by layer.
        masks: initial masks by layer, bool, of the weights' shapes; None for all active.
        allow_empty: whether a layer may have no active weight.

    Raises:
        UserError: if a layer has no active weight and `allow_empty` is false.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        masks: Mapping[str, Tensor] | None = None,
        *,
        allow_empty: bool = False,
    ) -> None:
        self.weights = dict(weights)
        self._allow_empty = allow_empty
        self._bytes = {
            name: torch.full(weight.shape, ACTIVE | EVER_ACTIVE, dtype=torch.uint8, device=weight.device)
            for name, weight in self.weights.items()
        }
        self._factors: dict[str, Tensor] | None = None  # masks of a small model as floats, until they change
        self._size = sum(weight.numel() for weight in self.weights.values())
        self._count()
        if masks is not None:
            self.reset(masks)

    @classmethod
    def random(cls, weights: Mapping[str, nn.Parameter], densities: Mapping[str, float], seed: int) -> Masks:
        """Draw masks from the run's seed; the density of a layer is the probability that an entry is active.

        Raises `UserError` if a layer has no active weight.
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
        """The active entries of a layer, as a new bool tensor."""
        return (self._bytes[name] & ACTIVE).view(torch.bool)

    @torch.no_grad()
    def apply(self) -> None:
        """Set inactive weights to zero, in place."""
        if self.size > _FEW_WEIGHTS:
            self._apply(self.weights)
            return
        if self._factors is None:
            self._factors = {name: self[name].to(self.weights[name].dtype) for name in self._sparse_layers}
        if self._factors:
            torch._foreach_mul_([self.weights[name].data for name in self._factors], list(self._factors.values()))

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Set inactive weights of a copy of the model to zero, in place."""
        self._apply(prunable_weights(model))

    @property
    def _sparse_layers(self) -> list[str]:
        return [name for name, active in self.active_by_layer.items() if active < self.weights[name].numel()]

    def _apply(self, weights: Mapping[str, nn.Parameter]) -> None:
        # One buffer for all layers: the factors then stay in the cache.
        sparse = self._sparse_layers
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
        """Set the mask of one layer, without applying it, and return how many entries became active.

        Raises `UserError` if no entry is active and the layer must not be empty.
        """
        states = self._bytes[name]
        mask = mask.to(states.device)
        grown = count_true(mask & ~self[name])
        new = mask.view(torch.uint8)
        states.bitwise_and_(EVER_ACTIVE).bitwise_or_(new).bitwise_or_(new << 1)
        self._count_layer(name)
        if not self.active_by_layer[name] and not self._allow_empty:
            raise UserError(
                f"layer {name} with {mask.numel()} weights keeps none; lower method.sparsity or choose another "
                "method.weights.distribution"
            )
        return grown

    def reset(self, masks: Mapping[str, Tensor]) -> None:
        """Set and apply the initial masks of a run, without a history of other active entries."""
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
        return self._size

    @property
    def density(self) -> float:
        """Share of active entries."""
        return self.active / self.size

    @property
    def ever_active(self) -> float:
        """Share of entries that are or were active."""
        return sum(self._ever_active_by_layer.values()) / self.size

    def layer_density(self) -> dict[str, float]:
        """Share of active entries, by layer."""
        return {name: active / math.prod(self.weights[name].shape) for name, active in self.active_by_layer.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the bytes, by layer."""
        return {name: states.cpu().clone() for name, states in self._bytes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, states in state.items():
            self._bytes[name].copy_(states)
        self._count()

    def _count(self) -> None:
        self.active_by_layer: dict[str, int] = {}
        self._ever_active_by_layer: dict[str, int] = {}
        for name in self.weights:
            self._count_layer(name)

    def _count_layer(self, name: str) -> None:
        # Counted when a mask changes, because counting for every log entry would cost more than the entry.
        states = self._bytes[name]
        self._factors = None
        self.active_by_layer[name] = count_true(self[name])
        self._ever_active_by_layer[name] = count_true(states >= EVER_ACTIVE)
