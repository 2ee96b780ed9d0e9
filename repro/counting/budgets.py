"""The budget of the masked layers: how much they may keep for the whole model to meet a target.

Source: Tai et al., "Spartan" (NeurIPS 2022), section 4: the density of the masked layers is lowered until the whole
model has the nominal one; block-sparse runs leave the first and the last layer dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.counting.erk import layer_densities
from repro.counting.layers import DenseModel, Layer
from repro.errors import UserError

ENTRY, NEURON = "entry", "neuron"


@dataclass(frozen=True)
class Budget:
    """The masked layers and how much of them may remain.

    Attributes:
        unit_costs: cost of an entry of each masked layer: 1, or the number of MACs that use it.
        densities: density of each masked layer; if `is_global`, only their total matters.
        is_global: whether the layers compete for one budget.
    """

    unit_costs: Mapping[str, int]
    densities: Mapping[str, float]
    is_global: bool

    def cost_of(self, layers: Sequence[Layer]) -> float:
        """The cost that these masked layers may keep."""
        return sum(self.densities[layer.name] * layer.size * self.unit_costs[layer.name] for layer in layers)


def masked_layers(layers: Sequence[Layer], block: str) -> list[Layer]:
    """The layers that are masked with blocks of this shape.

    `entry`: all; square blocks (`16x16`): all but the first and the last; `neuron`: those of attention and MLP.
    """
    if block == ENTRY:
        return list(layers)
    if block == NEURON:
        return [layer for layer in layers if ".attn." in layer.name or ".mlp." in layer.name]
    return list(layers[1:-1])


def budget(model: DenseModel, density: float, *, distribution: str, cost: str, block: str) -> Budget:
    """The budget of the masked layers for a given density of the whole model.

    Args:
        model: the dense model. `cost=params` counts every parameter, including those that are never sparse;
            `cost=macs` every MAC, including attention products.
        density: remaining share of the whole model's cost, in (0, 1].
        distribution: `global`: layers compete; `uniform`: the same share of each; `erk`: Erdos-Renyi-Kernel.
        cost: `params` or `macs`.
        block: see `masked_layers`.

    Raises:
        UserError: if the parts that stay dense cost more than the density allows.
    """
    masked = masked_layers(model.layers, block)
    unit_costs = {layer.name: layer.uses if cost == "macs" else 1 for layer in masked}
    total = model.macs if cost == "macs" else model.params
    maskable = sum(layer.size * unit_costs[layer.name] for layer in masked)
    remaining = density * total - (total - maskable)
    if remaining <= 0:
        raise UserError(
            f"method.sparsity={1 - density:g}: parts that are never pruned hold {100 * (1 - maskable / total):.2f} % "
            f"of the model's {cost}, more than the target of {100 * density:.2f} %; lower method.sparsity"
        )
    shapes = {layer.name: layer.shape for layer in masked}
    share = min(1.0, remaining / maskable)
    return Budget(unit_costs, layer_densities(distribution, shapes, share, unit_costs), distribution == "global")
