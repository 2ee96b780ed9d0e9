"""IMP: magnitude pruning during training, chosen anew after every update; only what is used learns.

Source: the baseline of the Spartan paper (Tai et al., NeurIPS 2022, section 4): the hard mask both ways. See
docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from repro.sparsity.top_kast import TopKAST


class IMP(TopKAST):
    """The used weight is theta on the support, 0 elsewhere; theta has no gradient outside the support."""

    def pull_back(self, gradients: Mapping[str, Tensor]) -> None:
        """Through the mask."""
        for name, gradient in gradients.items():
            gradient.mul_(self.masks[name])
