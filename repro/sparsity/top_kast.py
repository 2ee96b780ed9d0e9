"""Top-KAST: only the largest weights are used, all of them learn.

Source: Jayakumar et al., "Top-KAST: Top-K Always Sparse Training" (NeurIPS 2020), as the Spartan paper compares with
it: hard forward, identity backward (dual averaging). See docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from repro.sparsity.dense_trained import DenseTrained
from repro.sparsity.groups import Group
from repro.sparsity.hard_topk import Cut, Segment


class TopKAST(DenseTrained):
    """The used weight is theta on the support, 0 elsewhere; its gradient is given to theta as it is, everywhere."""

    def soften(self, scope: int, segments: Sequence[Segment], where: Cut, budget: float, update: int) -> None:
        """Nothing but the support."""

    def multiplier(self, group: Group, support: Tensor) -> Tensor:
        """The support."""
        return support

    def pull_back(self, gradients: Mapping[str, Tensor]) -> None:
        """As they are."""
