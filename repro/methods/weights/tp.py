"""TP: one-shot pruning of a trained model by the first-order Taylor score, then fine-tuning with fixed masks.

Source: a baseline of the SViTE paper (section 4), which gives no settings; see docs/methods.md for ours. The score is
that of Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), for individual weights:
|weight * gradient|, the first-order change of the loss if the weight is removed.
"""

from __future__ import annotations

from torch import nn

from repro.methods.base import Backward
from repro.methods.weights.masked import MaskedWeights
from repro.methods.weights.masks import Masks, prunable_weights
from repro.methods.weights.pruning import prune_to


class TP(MaskedWeights):
    """Prunes the weights with the smallest Taylor scores once, before the first update.

    Args:
        model: a vision transformer with trained weights.
        sparsity: fraction of all prunable weights that becomes zero, in [0, 1).
        distribution: `global` (all layers compete), `erk` or `uniform`.
        scoring_batches: number of global batches of training data over which the gradient is averaged.
    """

    def __init__(
        self, model: nn.Module, *, sparsity: float, distribution: str, scoring_batches: int, seed: int
    ) -> None:
        super().__init__(Masks(prunable_weights(model)))
        self.sparsity, self.distribution, self.scoring_batches = sparsity, distribution, scoring_batches

    def prepare(self, backward: Backward) -> None:
        """Compute the gradient and prune. Raises `UserError` if a layer keeps no weight."""
        backward(self.scoring_batches)
        scores = {}
        for name, weight in self.masks.weights.items():
            assert weight.grad is not None, f"{name} has no gradient"
            scores[name] = (weight.detach() * weight.grad).abs()
        self.masks.reset(prune_to(self.masks, scores, self.distribution, 1 - self.sparsity))
