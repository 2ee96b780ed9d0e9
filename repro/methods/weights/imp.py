"""IMP: magnitude pruning after every update of the training; only the used weights are trained.

Source: the baseline of the Spartan paper (Tai et al., NeurIPS 2022, section 4): the hard mask in forward and
backward. See docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from repro.methods.weights.top_kast import TopKAST


class IMP(TopKAST):
    """Uses theta on the support and 0 elsewhere. The gradient w.r.t. theta is zero outside the support."""

    def to_dense_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Multiply gradients by the mask."""
        for name, gradient in gradients.items():
            gradient.mul_(self.masks[name])
