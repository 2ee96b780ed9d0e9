"""SSP: structured one-shot pruning of a trained model by salience, then fine-tuning.

Source: a baseline of the SViTE paper (section 4), which names heads and neurons and gives no settings; see
docs/methods.md for ours. Salience is the first-order Taylor score of a unit's output, as S2ViTE uses it for heads
(Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019), here for neurons too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.counting.layers import units_kept
from repro.distributed import all_reduce_mean
from repro.methods.base import Backward
from repro.methods.weights.pruning import check_scoring_batches
from repro.methods.weights.selection import highest
from repro.methods.weights.structured import StructuredUnits
from repro.methods.weights.units import OutputProbe


def most_salient(salience: Tensor, density: float) -> Tensor:
    """Select the int(units * density) units with the highest salience, bool (units,). Ties go to the first.

    Raises `NotANumber` for a salience of NaN.
    """
    return highest(salience, torch.ones_like(salience, dtype=torch.bool), units_kept(len(salience), density))


class SSP(StructuredUnits):
    """Prunes the heads and neurons with the smallest salience in each block once, before the first update.

    Args:
        model: a vision transformer with trained weights.
        sparsity: the nominal sparsity of the row, not used: the densities determine what remains.
        heads_density, neurons_density: share of each block's heads and neurons that remains, in (0, 1].
        scoring_batches: number of global batches of training data over which salience is averaged.

    Raises:
        UserError: if fewer than one head or neuron of a block would remain, or for fewer than one batch.
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
        check_scoring_batches(scoring_batches)
        self.densities = {"heads": heads_density, "neurons": neurons_density}
        self.scoring_batches = scoring_batches
        super().__init__(model, self.densities)

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
            group.active = most_salient(all_reduce_mean(probe.taylor).cpu(), self.densities[group.kind])
            group.ever_active = group.active.clone()
            group.zero_inactive()
