"""TP: one-shot pruning of a trained model by the first-order Taylor score, then fine-tuning with fixed masks.

Source: a baseline of the SViTE paper (section 4), which gives no settings; see docs/methods.md for ours. The score is
that of Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), for single weights: what
removing a weight would change the loss by, to first order, |weight * gradient|.
"""

from __future__ import annotations

from torch import Tensor, nn

from repro.parts import Backward
from repro.sparsity.masked import MaskedWeights
from repro.sparsity.masks import Masks, prunable_weights
from repro.sparsity.pruning import check_scoring_batches, prune_to


def taylor_score(weight: Tensor, grad: Tensor) -> Tensor:
    """|weight * grad|: the loss's change, to first order, when the weight becomes zero. Any shape."""
    return (weight * grad).abs()


class TP(MaskedWeights):
    """Prunes once, before the first update, the weights of least Taylor score.

    Args:
        model: a vision transformer with trained weights.
        sparsity: fraction of all prunable weights that becomes zero, in [0, 1).
        distribution: `global`, `erk` or `uniform`: what competes with what.
        scoring_batches: global batches of training data whose mean gradient is scored.

    Raises:
        UserError: for less than one batch.
    """

    def __init__(
        self, model: nn.Module, *, sparsity: float, distribution: str, scoring_batches: int, seed: int
    ) -> None:
        check_scoring_batches(scoring_batches)
        super().__init__(Masks(prunable_weights(model)))
        self.sparsity, self.distribution, self.scoring_batches = sparsity, distribution, scoring_batches

    def prepare(self, backward: Backward) -> None:
        """Gather the gradient and prune. Raises `UserError` where a layer's own share is nothing."""
        backward(self.scoring_batches)
        scores = {}
        for name, weight in self.masks.weights.items():
            assert weight.grad is not None, f"{name} has no gradient"
            scores[name] = taylor_score(weight.detach(), weight.grad)
        self.masks.restart(prune_to(self.masks, scores, self.distribution, 1 - self.sparsity))
