"""OMP: one-shot magnitude pruning of a trained model, then fine-tuning with the masks that came out.

Source: a baseline of the SViTE paper (section 4), which gives no settings; see docs/methods.md for ours. The rule is
that of Han et al., "Learning both Weights and Connections" (NeurIPS 2015), in one shot and over all layers together.
"""

from __future__ import annotations

from torch import nn

from repro.parts import Backward
from repro.sparsity.masked import MaskedWeights
from repro.sparsity.masks import Masks, prunable_weights
from repro.sparsity.pruning import prune_to


class OMP(MaskedWeights):
    """Prunes once, before the first update, the weights of least magnitude; the masks stay as they are after that.

    Args:
        model: a vision transformer with trained weights.
        sparsity: fraction of all prunable weights that becomes zero, in [0, 1).
        distribution: `global`, `erk` or `uniform`: what competes with what.
    """

    def __init__(self, model: nn.Module, *, sparsity: float, distribution: str, seed: int) -> None:
        super().__init__(Masks(prunable_weights(model)))
        self.sparsity, self.distribution = sparsity, distribution

    def prepare(self, backward: Backward) -> None:
        """Prune. Raises `UserError` where a layer's own share is nothing."""
        scores = {name: weight.detach().abs() for name, weight in self.masks.weights.items()}
        self.masks.restart(prune_to(self.masks, scores, self.distribution, 1 - self.sparsity))
