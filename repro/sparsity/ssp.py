"""SSP: structured one-shot pruning of a trained model by salience, then fine-tuning what is left.

Source: a baseline of the SViTE paper (section 4), which names heads and neurons and gives no settings; see
docs/methods.md for ours. Salience is the first-order Taylor score of a unit's output, as S2ViTE uses it for heads
(Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019), here for neurons too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.measure.cost import units_kept
from repro.parts import Backward
from repro.sparsity.pruning import check_scoring_batches
from repro.sparsity.ranks import mean_over_ranks
from repro.sparsity.selection import highest
from repro.sparsity.structured import StructuredUnits
from repro.sparsity.units import OutputProbe


def most_salient(salience: Tensor, density: float) -> Tensor:
    """The units that stay: bool (units,), int(units * density) of them, those of highest salience, the first of ties.

    Raises `NotANumber` for a salience that is NaN.
    """
    return highest(salience, torch.ones_like(salience, dtype=torch.bool), units_kept(len(salience), density))


class SSP(StructuredUnits):
    """Prunes once, before the first update, the heads and neurons of least salience of each block.

    Args:
        model: a vision transformer with trained weights.
        sparsity: the row's nominal sparsity; what is kept is said by the two densities.
        heads_density, neurons_density: share of each block's heads and neurons that stays, in (0, 1].
        scoring_batches: global batches of training data that salience is the mean of.

    Raises:
        UserError: for a block with fewer than one head or neuron left, or less than one batch.
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
        """Watch every unit while gradients are gathered, and prune."""
        probes = [OutputProbe(group) for group in self.groups]
        try:
            backward(self.scoring_batches)
        finally:
            for probe in probes:
                probe.close()
        for probe in probes:
            group = probe.group
            group.active = most_salient(mean_over_ranks(probe.taylor).cpu(), self.densities[group.kind])
            group.ever_active = group.active.clone()
            group.zero_inactive()
