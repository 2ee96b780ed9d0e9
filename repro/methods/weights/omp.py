"""OMP: one-shot magnitude pruning of a trained model, then fine-tuning with fixed masks.

Source: a baseline of the SViTE paper (section 4), which gives no settings; see docs/methods.md for ours. The rule is
that of Han et al., "Learning both Weights and Connections" (NeurIPS 2015), in one shot and over all layers together.
"""

from __future__ import annotations

from torch import nn

from repro.methods.base import Backward
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.pruning import prune_to


class OMP(MaskedWeights):
    """Prunes the weights with the smallest magnitudes once, before the first update.

    Args:
        model: a vision transformer with trained weights.
        sparsity: fraction of all prunable weights that becomes zero, in [0, 1).
        distribution: `global` (all layers compete), `erk` or `uniform`.
    """

    def __init__(self, model: nn.Module, *, sparsity: float, distribution: str, seed: int) -> None:
        super().__init__(Masks(prunable_weights(model)))
        self.sparsity, self.distribution = sparsity, distribution

    def prepare(self, backward: Backward) -> None:
        """Prune. Raises `UserError` if a layer keeps no weight."""
        scores = {name: weight.detach().abs() for name, weight in self.masks.weights.items()}
        self.masks.reset(prune_to(self.masks, scores, self.distribution, 1 - self.sparsity))
