"""Top-KAST: the largest weights are used, and all are trained.

Source: Jayakumar et al., "Top-KAST: Top-K Always Sparse Training" (NeurIPS 2020), in the form that the Spartan
paper compares with: hard forward, identity backward (dual averaging). See docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from repro.methods.weights.dense_parameters import DenseToSparse
from repro.methods.weights.topk import Cut, Entries


class TopKAST(DenseToSparse):
    """Uses theta on the support and 0 elsewhere. The gradient reaches all of theta unchanged."""

    def factors(self, scope: int, entries: Entries, budget: float, cut: Cut, support: Tensor, update: int) -> Tensor:
        """Return the support."""
        return support

    def to_dense_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Leave gradients unchanged."""
