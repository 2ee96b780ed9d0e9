"""SSP: structured one-shot pruning of a trained model by salience, then fine-tuning.

Source: a baseline of the SViTE paper (section 4), which names heads and neurons and gives no settings; see
docs/methods.md for ours. Salience is the first-order Taylor score of a unit's output, as S2ViTE uses it for heads
(Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019), here for neurons too.
"""

from __future__ import annotations

import torch
from torch import nn

from repro.counting.layers import units_kept
from repro.distributed import all_reduce_mean
from repro.methods.base import Backward
from repro.methods.weights.selection import highest
from repro.methods.weights.structured import StructuredUnits
from repro.methods.weights.units import OutputProbe


class SSP(StructuredUnits):
    """Prunes the heads and neurons with the smallest salience in each block once, before the first update.

    Args:
        model: a vision transformer with trained weights.
        sparsity: the nominal sparsity of the row, not used: the densities determine what remains.
        heads_density, neurons_density: share of each block's heads and neurons that remains, in (0, 1].
        scoring_batches: number of global batches of training data over which salience is averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        heads_density: float,
        neurons_density: float,
        scoring_batches: int,
        seed: int,
    ) -> None:
        self.unit_densities = {"heads": heads_density, "neurons": neurons_density}
        self.scoring_batches = scoring_batches
        super().__init__(model)

    def prepare(self, backward: Backward) -> None:
        """Score all units during a backward pass, and prune."""
        probes = [OutputProbe(group) for group in self.groups]
        try:
            backward(self.scoring_batches)
        finally:
            for probe in probes:
                probe.close()
        for probe in probes:
            group = probe.group
            salience = all_reduce_mean(probe.taylor).cpu()
            count = units_kept(len(salience), self.unit_densities[group.kind])
            group.active = highest(salience, torch.ones_like(group.active), count)
            group.ever_active = group.active.clone()
            group.zero_inactive()
