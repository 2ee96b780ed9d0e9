"""What the masked layers may keep, so that the whole model meets its target. Pure arithmetic, no torch.

Source: Tai et al., "Spartan" (NeurIPS 2022), section 4: the density of the masked layers is lowered until the whole
model has the nominal one; block-sparse runs leave the first and the last layer dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.errors import UserError
from repro.measure.layers import Layer, Whole
from repro.sparsity.erk import layer_densities

ENTRY, NEURON = "entry", "neuron"
COSTS = ("params", "macs")


@dataclass(frozen=True)
class Budget:
    """Masked layers and what they may keep: `share` of each when densities are fixed by layer, or of all together.

    Attributes:
        unit: what an entry of each masked layer costs: 1, or the MACs that it takes part in.
        densities: the density of each masked layer; with `is_global` only their total is meant.
        is_global: whether the layers compete.
    """

    unit: Mapping[str, int]
    densities: Mapping[str, float]
    is_global: bool

    def of(self, layers: Sequence[Layer]) -> float:
        """What these of the masked layers may keep, in cost."""
        return sum(self.densities[layer.name] * layer.size * self.unit[layer.name] for layer in layers)


def masked_layers(layers: Sequence[Layer], block: str) -> list[Layer]:
    """The layers whose entries a block shape masks.

    `entry`: every one; square blocks (`16x16`): all but the first and the last; `neuron`: those of attention and MLP.
    """
    if block == ENTRY:
        return list(layers)
    if block == NEURON:
        return [layer for layer in layers if ".attn." in layer.name or ".mlp." in layer.name]
    return list(layers[1:-1])


def budget(model: Whole, density: float, *, distribution: str, cost: str, block: str) -> Budget:
    """What the masked layers may keep at a density of the whole model.

    Args:
        model: what is counted. `cost=params` counts every parameter, those that are never sparse among them;
            `cost=macs` every MAC, those of attention products among them.
        density: kept share of the whole model's cost, in (0, 1].
        distribution: `global`: layers compete; `uniform`: each keeps the same share; `erk`: Erdos-Renyi-Kernel.
        cost: `params` or `macs`.
        block: see `masked_layers`.

    Raises:
        UserError: where what stays dense costs more than the density leaves.
    """
    masked = masked_layers(model.layers, block)
    unit = {layer.name: layer.uses if cost == "macs" else 1 for layer in model.layers}
    total = model.macs if cost == "macs" else model.params
    maskable = sum(layer.size * unit[layer.name] for layer in masked)
    left = density * total - (total - maskable)
    if left <= 0:
        raise UserError(
            f"method.sparsity={1 - density:g}: what stays dense has {100 * (1 - maskable / total):.2f} % of the "
            f"model's {cost}, more than the {100 * density:.2f} % that are to stay; lower method.sparsity"
        )
    shapes = {layer.name: layer.shape for layer in masked}
    units = {layer.name: unit[layer.name] for layer in masked}
    share = min(1.0, left / maskable)
    return Budget(units, layer_densities(distribution, shapes, share, units), distribution == "global")
