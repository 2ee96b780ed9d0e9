"""The removable units of a vision transformer block: attention heads and MLP neurons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError


@dataclass(frozen=True)
class Slice:
    """Rows (`dim` 0) or columns (`dim` 1) of a parameter that belong to units, `indices[unit]` each."""

    parameter: nn.Parameter
    dim: int
    indices: Tensor  # (units, entries per unit), int64

    def read(self, units: Tensor) -> Tensor:
        """A copy of what the units in the bool tensor `units` own."""
        return self.parameter.detach().index_select(self.dim, self._places(units)).clone()

    def write(self, units: Tensor, values: Tensor | None) -> None:
        """Put `values` (zero for None) where the units in the bool tensor `units` own."""
        places = self._places(units)
        if values is None:
            self.parameter.data.index_fill_(self.dim, places, 0.0)
        else:
            self.parameter.data.index_copy_(self.dim, places, values.to(self.parameter))

    def l1(self, values: Tensor) -> Tensor:
        """Sum of |values| over what each unit owns; `values` has the parameter's shape. Shape (units,)."""
        other = values.abs().flatten(1).sum(1 - self.dim) if values.dim() > 1 else values.abs()
        return other[self.indices.to(other.device)].sum(1)

    def _places(self, units: Tensor) -> Tensor:
        return self.indices[units.cpu()].flatten().to(self.parameter.device)


@dataclass
class UnitGroup:
    """All heads, or all neurons, of one block.

    Attributes:
        name: `blocks.3.attn` or `blocks.3.mlp`.
        kind: `heads` or `neurons`.
        reader: the linear layer that reads the units' outputs (proj, fc2): its input is (batch, tokens, units * width).
        incoming: what makes a unit's output: rows of qkv, or of fc1, weights before biases.
        outgoing: what is made of it: columns of the reader.
        owns_outgoing: whether the outgoing weights leave with the unit. A neuron's do; a head's columns of proj are
            never masked by the released code.
        active: bool (units,).
    """

    name: str
    kind: str
    reader: nn.Linear
    incoming: tuple[Slice, ...]
    outgoing: Slice
    owns_outgoing: bool
    active: Tensor
    ever_active: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.ever_active = self.active.clone()

    @property
    def owned(self) -> tuple[Slice, ...]:
        """The weights and biases that leave with a unit and are zero while it is inactive."""
        return (*self.incoming, self.outgoing) if self.owns_outgoing else self.incoming

    def zero_inactive(self) -> None:
        """Set what inactive units own to zero."""
        for part in self.owned:
            part.write(~self.active, None)


def unit_groups(model: nn.Module) -> Iterator[UnitGroup]:
    """The heads and the neurons of each block of a timm vision transformer, all active, in the model's order.

    Raises `UserError` for a model without such blocks.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        name = type(model).__name__
        raise UserError(f"{name} has no transformer blocks: structured methods need a vision transformer")
    block: Any
    for index, block in enumerate(blocks):
        attention, mlp = block.attn, block.mlp
        heads, width = attention.num_heads, attention.head_dim
        rows = torch.arange(3 * heads * width).view(3, heads, width).transpose(0, 1).reshape(heads, 3 * width)
        yield UnitGroup(
            name=f"blocks.{index}.attn",
            kind="heads",
            reader=attention.proj,
            incoming=tuple(
                Slice(part, 0, rows) for part in (attention.qkv.weight, attention.qkv.bias) if part is not None
            ),
            outgoing=Slice(attention.proj.weight, 1, torch.arange(heads * width).view(heads, width)),
            owns_outgoing=False,
            active=torch.ones(heads, dtype=torch.bool),
        )
        neurons = torch.arange(mlp.fc1.out_features).view(-1, 1)
        yield UnitGroup(
            name=f"blocks.{index}.mlp",
            kind="neurons",
            reader=mlp.fc2,
            incoming=(Slice(mlp.fc1.weight, 0, neurons), Slice(mlp.fc1.bias, 0, neurons)),
            outgoing=Slice(mlp.fc2.weight, 1, neurons),
            owns_outgoing=True,
            active=torch.ones(mlp.fc1.out_features, dtype=torch.bool),
        )


class OutputProbe:
    """Watches what units give to their reader during one update, and keeps the scores that need its gradient.

    For micro-batches of B images, output x (B, tokens, units, width) and its gradient g, it adds up over the update:

    * `taylor`: sum over images of |sum over tokens and width of g * x|, the Taylor score of removing a unit;
    * `gradient_l1`: sum of |g|.

    It holds no copy of an output, and lets go of each as soon as it is scored: backward would otherwise keep them all.
    """

    def __init__(self, group: UnitGroup) -> None:
        self.group = group
        zeros = torch.zeros(len(group.active), device=group.reader.weight.device)
        self.taylor, self.gradient_l1 = zeros.clone(), zeros.clone()
        self._outputs: list[Tensor] = []
        self._handle = group.reader.register_forward_pre_hook(self._watch)

    def close(self) -> None:
        """Stop watching."""
        self._handle.remove()
        self._outputs.clear()

    def _watch(self, reader: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        output = inputs[0]
        if not output.requires_grad:
            return None
        # A view, so that the gradient is what this reader gives back, whoever else reads the output.
        seen = output.view_as(output)
        self._outputs.append(output.detach())
        seen.register_hook(self._score)
        return (seen,)

    def _score(self, gradient: Tensor) -> None:
        """Score the last output watched: backward goes through one micro-batch before the next is seen."""
        gradient = gradient.detach().unflatten(-1, (len(self.group.active), -1))
        output = self._outputs.pop().unflatten(-1, (len(self.group.active), -1))
        # A reduced precision may hold outputs and gradients; scores are added up in float32.
        self.taylor += (gradient.float() * output.float()).sum((1, 3)).abs().sum(0)
        self.gradient_l1 += gradient.abs().sum((0, 1, 3), dtype=torch.float32)
