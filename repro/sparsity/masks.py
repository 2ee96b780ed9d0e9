"""Masks over the weights of a model: which entries may be nonzero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.seeding import generator


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
    """One bool tensor for each prunable weight. The weights they belong to are kept zero where a mask is false."""

    def __init__(self, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)
        self.by_layer = {name: masks[name].to(weight.device) for name, weight in self.weights.items()}
        self.apply()

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
            if not masks[name].any():
                raise UserError(
                    f"layer {name} with {weight.numel()} weights keeps none at density {densities[name]:.2g}; "
                    "lower method.sparsity or choose another method.weights.distribution"
                )
        return cls(weights, masks)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights outside the masks to zero, in place."""
        torch._foreach_mul_([weight.data for weight in self.weights.values()], self._factors())

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """The same for another copy of the model."""
        copies = prunable_weights(model)
        torch._foreach_mul_([copies[name].data for name in self.by_layer], self._factors())

    def _factors(self) -> list[Tensor]:
        # The same bytes read as uint8: a foreach product with bool falls back to one slow kernel per tensor (3x here).
        return [mask.view(torch.uint8) for mask in self.by_layer.values()]

    def replace(self, name: str, mask: Tensor) -> int:
        """Take a new mask for one layer; returns how many entries became active."""
        grown = int((mask & ~self.by_layer[name]).sum())
        self.by_layer[name].copy_(mask)
        return grown

    @property
    def density(self) -> float:
        """Active entries over all entries."""
        return self.active / sum(mask.numel() for mask in self.by_layer.values())

    @property
    def active(self) -> int:
        """Number of active entries."""
        return sum(int(mask.sum()) for mask in self.by_layer.values())

    def layer_density(self) -> dict[str, float]:
        """Active entries over all entries, by layer."""
        return {name: int(mask.sum()) / math.prod(mask.shape) for name, mask in self.by_layer.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the masks, by layer."""
        return {name: mask.cpu().clone() for name, mask in self.by_layer.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        for name, mask in state.items():
            self.by_layer[name].copy_(mask)
