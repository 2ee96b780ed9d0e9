"""What is masked as one: single entries, square blocks of a matrix, or whole heads and neurons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from repro.errors import UserError
from repro.sparsity.budgets import ENTRY, NEURON
from repro.sparsity.hard_topk import Segment

Tensors = Mapping[str, Tensor]


class Group(ABC):
    """Groups of entries of one or more layers, in a fixed order; each entry of these layers is in one of them.

    Attributes:
        layers: the layers whose entries they are.
        count: how many groups there are.
    """

    layers: tuple[str, ...]
    count: int

    def __init__(self, layers: Sequence[str], count: int, entry_cost: float) -> None:
        self.layers, self.count, self.entry_cost = tuple(layers), count, entry_cost

    @abstractmethod
    def total(self, entries: Tensors) -> Tensor:
        """The sum over each group of what its entries have in `entries`, by layer: (count,)."""

    @abstractmethod
    def spread(self, values: Tensor, layer: str) -> Tensor:
        """For each entry of a layer the value, in the (count,) tensor `values`, of its group."""

    @property
    @abstractmethod
    def sizes(self) -> Tensor | int:
        """Entries of each group."""

    @property
    def costs(self) -> Tensor | float:
        """What each group costs."""
        sizes = self.sizes
        return sizes.float() * self.entry_cost if isinstance(sizes, Tensor) else sizes * self.entry_cost

    def segment(self, weights: Tensors) -> Segment:
        """The groups as what competes: the sum of |weight|, and the cost."""
        return Segment(self.total({name: weights[name].abs() for name in self.layers}), self.costs)


class Entries(Group):
    """Every entry of a layer by itself."""

    def __init__(self, layer: str, shape: Sequence[int], entry_cost: float) -> None:
        super().__init__([layer], math.prod(shape), entry_cost)
        self.shape = tuple(shape)

    @property
    def sizes(self) -> int:
        """One each."""
        return 1

    def total(self, entries: Tensors) -> Tensor:
        """The entries themselves."""
        return entries[self.layers[0]].reshape(-1)

    def spread(self, values: Tensor, layer: str) -> Tensor:
        """The values themselves."""
        return values.view(self.shape)

    def segment(self, weights: Tensors) -> Segment:
        """Read where they are: no copy of the magnitudes."""
        return Segment(weights[self.layers[0]].reshape(-1), self.costs, is_signed=True)


class Blocks(Group):
    """Square blocks of a layer as a matrix (out, in); a convolution is (out, in * height * width), as it is multiplied.

    Blocks at the right and lower edge are cut off where the side does not divide the matrix.
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
        """side * side, less at an edge that is cut off."""
        return self.side**2 if self._sizes is None else self._sizes

    def total(self, entries: Tensors) -> Tensor:
        """Sums of blocks, row by row."""
        matrix = entries[self.layers[0]].reshape(self.rows, self.columns)
        if not self._is_even:
            beyond = (0, self.across * self.side - self.columns, 0, self.down * self.side - self.rows)
            matrix = nn.functional.pad(matrix, beyond)
        return matrix.view(self.down, self.side, self.across, self.side).sum((1, 3)).view(-1)

    def spread(self, values: Tensor, layer: str) -> Tensor:
        """A block's value at each of its entries."""
        blocks = values.view(self.down, 1, self.across, 1).expand(-1, self.side, -1, self.side)
        full = blocks.reshape(self.down * self.side, self.across * self.side)
        return full[: self.rows, : self.columns].reshape(self.shape)


class Units(Group):
    """Heads or neurons of a block: their rows of the layer that makes them, their columns of the one that reads them.

    Args:
        makes: layer and shape of qkv (three parts of `count` heads) or fc1 (`count` neurons).
        reads: the same of proj or fc2.
        parts: 3 for heads, 1 for neurons.
    """

    def __init__(
        self,
        makes: tuple[str, Sequence[int]],
        reads: tuple[str, Sequence[int]],
        count: int,
        parts: int,
        entry_cost: float,
    ) -> None:
        super().__init__([makes[0], reads[0]], count, entry_cost)
        self.parts = parts
        self.shapes = {makes[0]: tuple(makes[1]), reads[0]: tuple(reads[1])}

    @property
    def sizes(self) -> int:
        """Entries of one unit."""
        return sum(math.prod(shape) for shape in self.shapes.values()) // self.count

    def total(self, entries: Tensors) -> Tensor:
        """Rows and columns of each unit, added up."""
        makes, reads = (entries[name] for name in self.layers)
        rows = makes.reshape(self.parts, self.count, -1).sum((0, 2))
        return rows + reads.reshape(reads.shape[0], self.count, -1).sum((0, 2))

    def spread(self, values: Tensor, layer: str) -> Tensor:
        """A unit's value at its rows, or at its columns."""
        shape = self.shapes[layer]
        if layer == self.layers[0]:
            width = shape[0] // (self.parts * self.count)
            rows = values.view(1, self.count, 1).expand(self.parts, -1, width).reshape(-1, 1)
            return rows.expand(shape)
        width = shape[1] // self.count
        return values.view(self.count, 1).expand(-1, width).reshape(1, -1).expand(shape)


def groups_of(model: nn.Module, weights: Mapping[str, Tensor], block: str, unit: Mapping[str, float]) -> list[Group]:
    """The groups of every layer in `unit`, which says what an entry of it costs; in the model's order.

    Args:
        block: `entry`, `neuron`, or the sides of a square (`16x16`).

    Raises `UserError` for another word, and for neurons of a model that is no vision transformer.
    """
    if block == ENTRY:
        return [Entries(name, weights[name].shape, cost) for name, cost in unit.items()]
    if block == NEURON:
        return _units(model, weights, unit)
    side, _, other = block.partition("x")
    if not side.isdecimal() or side != other or int(side) < 1:
        raise UserError(f"method.weights.block={block}: entry, neuron, or a square such as 16x16")
    return [Blocks(name, weights[name].shape, int(side), cost, weights[name].device) for name, cost in unit.items()]


def _units(model: nn.Module, weights: Mapping[str, Tensor], unit: Mapping[str, float]) -> list[Group]:
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        raise UserError(f"method.weights.block={NEURON}: {type(model).__name__} has no transformer blocks")
    found: list[Group] = []
    for index, block in enumerate(cast(Any, blocks)):
        pairs = (
            ("attn.qkv", "attn.proj", block.attn.num_heads, 3),
            ("mlp.fc1", "mlp.fc2", block.mlp.fc1.out_features, 1),
        )
        for makes, reads, count, parts in pairs:
            first, second = f"blocks.{index}.{makes}", f"blocks.{index}.{reads}"
            shapes = ((first, weights[first].shape), (second, weights[second].shape))
            found.append(Units(*shapes, count, parts, unit[first]))
    return found
