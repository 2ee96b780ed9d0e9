"""Groups of entries that are masked together: single entries, square blocks, or heads and neurons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from repro.counting.budgets import ENTRY, NEURON
from repro.methods.weights.topk import Entries

Tensors = Mapping[str, Tensor]


class Group(ABC):
    """A partition of the entries of one or more layers into groups, in a fixed order.

    Attributes:
        layers: names of the layers.
        count: number of groups.
        entry_cost: cost of one entry.
    """

    layers: tuple[str, ...]
    count: int

    def __init__(self, layers: Sequence[str], count: int, entry_cost: float) -> None:
        self.layers, self.count, self.entry_cost = tuple(layers), count, entry_cost

    @abstractmethod
    def total(self, entries: Tensors) -> Tensor:
        """Sum values of entries, given by layer, over each group: (count,)."""

    @abstractmethod
    def expand(self, values: Tensor, layer: str) -> Tensor:
        """Expand a value per group, (count,), to the entries of a layer."""

    @property
    @abstractmethod
    def sizes(self) -> Tensor | int:
        """Number of entries of each group."""

    @property
    def costs(self) -> Tensor | float:
        """Cost of each group."""
        sizes = self.sizes
        return sizes.float() * self.entry_cost if isinstance(sizes, Tensor) else sizes * self.entry_cost

    def ratios(self, weights: Tensors) -> Tensor:
        """Return the sum of |weight| over each group, divided by its cost."""
        return self.total({name: weights[name].abs() for name in self.layers}).div_(self.costs)


class Blocks(Group):
    """Square blocks of a layer's matrix, (out, in), or (out, in * height * width) for a convolution.

    Blocks of side 1 are single entries. Blocks at the right and bottom edges are smaller if `side` does not divide the
    size of the matrix.
    """

    def __init__(self, layer: str, shape: Sequence[int], side: int, entry_cost: float, device: torch.device) -> None:
        self.shape, self.side = tuple(shape), side
        self.rows, self.columns = shape[0], math.prod(shape[1:])
        self.down, self.across = -(-self.rows // side), -(-self.columns // side)
        super().__init__([layer], self.down * self.across, entry_cost)
        self._is_even = self.rows % side == 0 and self.columns % side == 0
        self._sizes = None if self._is_even else self.total({layer: torch.ones(self.shape, device=device)}).long()

    @property
    def sizes(self) -> Tensor | int:
        """side * side, or less at the edges."""
        return self.side**2 if self._sizes is None else self._sizes

    def total(self, entries: Tensors) -> Tensor:
        """Sum entries over each block, in row-major order."""
        if self.side == 1:
            return entries[self.layers[0]].reshape(-1)
        matrix = entries[self.layers[0]].reshape(self.rows, self.columns)
        if not self._is_even:
            padding = (0, self.across * self.side - self.columns, 0, self.down * self.side - self.rows)
            matrix = nn.functional.pad(matrix, padding)
        return matrix.view(self.down, self.side, self.across, self.side).sum((1, 3)).view(-1)

    def expand(self, values: Tensor, layer: str) -> Tensor:
        """Expand a value per block to its entries."""
        blocks = values.view(self.down, 1, self.across, 1).expand(-1, self.side, -1, self.side)
        full = blocks.reshape(self.down * self.side, self.across * self.side)
        return full[: self.rows, : self.columns].reshape(self.shape)


class Units(Group):
    """Heads or neurons of a block: rows of the layer that computes their outputs, columns of the layer that reads them.

    Args:
        producer: name and shape of qkv (three parts of `count` heads) or fc1 (`count` neurons).
        reader: name and shape of proj or fc2.
        parts: 3 for heads, 1 for neurons.
    """

    def __init__(
        self,
        producer: tuple[str, Sequence[int]],
        reader: tuple[str, Sequence[int]],
        count: int,
        parts: int,
        entry_cost: float,
    ) -> None:
        super().__init__([producer[0], reader[0]], count, entry_cost)
        self.parts = parts
        self.shapes = {producer[0]: tuple(producer[1]), reader[0]: tuple(reader[1])}

    @property
    def sizes(self) -> int:
        """Number of entries of one unit."""
        return sum(math.prod(shape) for shape in self.shapes.values()) // self.count

    def total(self, entries: Tensors) -> Tensor:
        """Sum rows and columns of each unit."""
        producer, reader = (entries[name] for name in self.layers)
        rows = producer.reshape(self.parts, self.count, -1).sum((0, 2))
        return rows + reader.reshape(reader.shape[0], self.count, -1).sum((0, 2))

    def expand(self, values: Tensor, layer: str) -> Tensor:
        """Expand a value per unit to its rows, or its columns."""
        shape = self.shapes[layer]
        if layer == self.layers[0]:
            width = shape[0] // (self.parts * self.count)
            rows = values.view(1, self.count, 1).expand(self.parts, -1, width).reshape(-1, 1)
            return rows.expand(shape)
        width = shape[1] // self.count
        return values.view(self.count, 1).expand(-1, width).reshape(1, -1).expand(shape)


def build_groups(
    model: nn.Module, weights: Mapping[str, Tensor], block: str, unit_costs: Mapping[str, float]
) -> list[Group]:
    """Partition the entries of the layers in `unit_costs` into groups, in the model's order.

    Args:
        block: `entry`, `neuron`, or the sides of a square (`16x16`).
        unit_costs: cost of an entry, by layer.
    """
    if block == NEURON:
        return _units(model, weights, unit_costs)
    side = 1 if block == ENTRY else int(block.partition("x")[0])
    return [Blocks(name, weights[name].shape, side, cost, weights[name].device) for name, cost in unit_costs.items()]


def entries_of(groups: Sequence[Group], weights: Tensors) -> Entries:
    """Return the ratios and costs of groups that compete for one budget."""
    ratios = torch.cat([group.ratios(weights) for group in groups])
    costs = [group.costs for group in groups]
    if not any(isinstance(cost, Tensor) or cost != costs[0] for cost in costs):
        return Entries(ratios, costs[0])
    doubles = (torch.as_tensor(cost, dtype=torch.float64, device=ratios.device) for cost in costs)
    return Entries(ratios, torch.cat([cost.expand(group.count) for cost, group in zip(doubles, groups, strict=True)]))


def _units(model: nn.Module, weights: Mapping[str, Tensor], unit_costs: Mapping[str, float]) -> list[Group]:
    groups: list[Group] = []
    for index, block in enumerate(cast(Any, model).blocks):
        pairs = (
            ("attn.qkv", "attn.proj", block.attn.num_heads, 3),
            ("mlp.fc1", "mlp.fc2", block.mlp.fc1.out_features, 1),
        )
        for producer, reader, count, parts in pairs:
            names = f"blocks.{index}.{producer}", f"blocks.{index}.{reader}"
            first, second = ((name, weights[name].shape) for name in names)
            groups.append(Units(first, second, count, parts, unit_costs[names[0]]))
    return groups
