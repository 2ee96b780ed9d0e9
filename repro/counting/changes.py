"""What a method removes from a backbone and adds to it, in terms that can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelChanges:
    """The difference between a method's finished model and the dense backbone. The default is no difference.

    Shares are fractions in [0, 1]; a layer or unit missing from a mapping has share 1.

    Attributes:
        densities: nonzero share of each layer's entries, by layer name.
        stored: share of each layer's entries that the model multiplies by at run time: less than 1 where a layer is
            physically smaller (low-rank factors), 1 where a mask only sets entries to zero.
        unit_shares: remaining share of each kind of unit (a key of `Geometry.units`), the same in every block.
        tokens: tokens after the embedding, class token included; None for all.
        layer_tokens: share of these tokens that reaches each layer, by layer name.
        attention_share: remaining share of the products between activations (QK^T and AV).
        added_params: parameters of modules that the method adds.
        added_macs: MACs of these modules for one image, as the papers count them.
        added_macs_as_run: MACs of these modules for one image, as this code computes them.
        are_macs_exact, are_params_exact: False if the count assumes something that only training determines.
        is_measured: whether a run has measured the changes on its data.
    """

    densities: Mapping[str, float] = field(default_factory=dict)
    stored: Mapping[str, float] = field(default_factory=dict)
    unit_shares: Mapping[str, float] = field(default_factory=dict)
    tokens: int | None = None
    layer_tokens: Mapping[str, float] = field(default_factory=dict)
    attention_share: float = 1.0
    added_params: float = 0
    added_macs: float = 0
    added_macs_as_run: float = 0
    are_macs_exact: bool = True
    are_params_exact: bool = True
    is_measured: bool = False

    def combined(self, other: ModelChanges) -> ModelChanges:
        """Combine both changes to the same backbone: shares are multiplied, additions are summed."""
        return ModelChanges(
            densities=_product(self.densities, other.densities),
            stored=_product(self.stored, other.stored),
            unit_shares=_product(self.unit_shares, other.unit_shares),
            tokens=min((count for count in (self.tokens, other.tokens) if count is not None), default=None),
            layer_tokens=_product(self.layer_tokens, other.layer_tokens),
            attention_share=self.attention_share * other.attention_share,
            added_params=self.added_params + other.added_params,
            added_macs=self.added_macs + other.added_macs,
            added_macs_as_run=self.added_macs_as_run + other.added_macs_as_run,
            are_macs_exact=self.are_macs_exact and other.are_macs_exact,
            are_params_exact=self.are_params_exact and other.are_params_exact,
            is_measured=self.is_measured or other.is_measured,
        )


def _product(shares: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {name: shares.get(name, 1.0) * others.get(name, 1.0) for name in {**shares, **others}}
