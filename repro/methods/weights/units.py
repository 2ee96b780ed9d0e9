"""The removable units of a vision transformer block: attention heads and MLP neurons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slice:
    """Rows (`dim` 0) or columns (`dim` 1) of a parameter that belong to units: `indices[unit]` for each unit."""

    parameter: nn.Parameter
    dim: int
    indices: Tensor  # (units, entries per unit), int64

    def read(self, units: Tensor) -> Tensor:
        """Return a copy of the entries of the units in the bool tensor `units`."""
        return self.parameter.detach().index_select(self.dim, self._indices(units))

    def write(self, units: Tensor, values: Tensor | None) -> None:
        """Set the entries of the units in the bool tensor `units` to `values`, or to zero for None."""
        indices = self._indices(units)
        if values is None:
            self.parameter.data.index_fill_(self.dim, indices, 0.0)
        else:
            self.parameter.data.index_copy_(self.dim, indices, values.to(self.parameter))

    def l1(self, values: Tensor) -> Tensor:
        """Sum |values|, of the parameter's shape, over the entries of each unit: (units,)."""
        sums = values.abs().flatten(1).sum(1 - self.dim) if values.dim() > 1 else values.abs()
        return sums[self.indices.to(sums.device)].sum(1)

    def _indices(self, units: Tensor) -> Tensor:
        return self.indices[units.cpu()].flatten().to(self.parameter.device)


@dataclass
class UnitGroup:
    """All heads, or all neurons, of one block.

    Attributes:
        name: `blocks.3.attn` or `blocks.3.mlp`.
        kind: `heads` or `neurons`.
        reader: the linear layer that takes the units' outputs (proj, fc2): its input is (batch, tokens, units * width).
        incoming: rows of qkv or fc1 that compute a unit's output, weights before biases.
        outgoing: columns of the reader that take a unit's output.
        owns_outgoing: whether the outgoing weights are removed with the unit. Those of a neuron are; the released code
            never masks a head's columns of proj.
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
        """The weights and biases that are removed with a unit, and are zero while it is inactive."""
        return (*self.incoming, self.outgoing) if self.owns_outgoing else self.incoming

    def zero_inactive(self) -> None:
        """Set weights and biases of inactive units to zero."""
        for part in self.owned:
            part.write(~self.active, None)


def unit_groups(model: nn.Module) -> Iterator[UnitGroup]:
    """Yield the heads and the neurons of each block of a timm vision transformer, all active, in the model's order."""
    blocks: Any = model.blocks
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
    """Accumulates scores of units from their outputs and output gradients, over one update.

    For micro-batches of B images, with outputs x (B, tokens, units, width) and their gradients g:

    * `taylor`: sum over images of |sum over tokens and width of g * x|, the Taylor score of removing a unit;
    * `gradient_l1`: sum of |g|.

    Each output is released as soon as it is scored, so that the backward pass does not hold all of them.
    """

    def __init__(self, group: UnitGroup) -> None:
        self.group = group
        zeros = torch.zeros(len(group.active), device=group.reader.weight.device)
        self.taylor, self.gradient_l1 = zeros.clone(), zeros.clone()
        self._handle = group.reader.register_forward_pre_hook(self._record)

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _record(self, reader: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        output = inputs[0]
        if not output.requires_grad:
            return None
        # A view, so that the gradient is that of this reader only, even if other modules read the output.
        view = output.view_as(output)
        recorded = [output.detach()]  # emptied by the backward pass; a checkpointed block drops that of one of its runs
        view.register_hook(lambda gradient: self._score(recorded.pop(), gradient))
        return (view,)

    def _score(self, output: Tensor, gradient: Tensor) -> None:
        gradient = gradient.detach().unflatten(-1, (len(self.group.active), -1))
        output = output.unflatten(-1, (len(self.group.active), -1))
        # Outputs and gradients may be in half precision; scores are summed in float32.
        self.taylor += (gradient.float() * output.float()).sum((1, 3)).abs().sum(0)
        self.gradient_l1 += gradient.abs().sum((0, 1, 3), dtype=torch.float32)
