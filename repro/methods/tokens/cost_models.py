"""Cost models of token methods: what they leave of a model. Torch-free, because plans and reports use them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.counting.changes import ModelChanges
from repro.counting.cost_model import NOT_MEASURED, CostModel, Measurements
from repro.counting.geometry import Geometry
from repro.counting.keep_rates import KeepRates, TokensPerBlock
from repro.errors import count_of


@dataclass(frozen=True)
class InputSelection(CostModel):
    """A linear scorer selects tokens before the first block: `kept_tokens` of `reference_tokens`, or proportionally."""

    kept_tokens: int
    reference_tokens: int

    faster_by = "tokens dropped"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """Fewer tokens in every block, and a scorer with one output per patch."""
        scores = model.patches * model.token_width
        return ModelChanges(
            tokens=self._kept(model),
            added_params=model.token_width + 1,
            added_macs=scores,
            added_macs_as_run=scores,
        )

    def class_options(self, model: Geometry, tokens: int) -> dict[str, Any]:
        """The number of tokens that this model keeps."""
        return {"kept": self._kept(model)}

    def _kept(self, model: Geometry) -> int:
        """Tokens kept, class token included and at least one patch."""
        return min(model.tokens, max(2, round(model.tokens * self.kept_tokens / self.reference_tokens)))


@dataclass(frozen=True)
class StagedDropping(CostModel):
    """Patches are dropped before groups of blocks; `keep_rates` are the planned shares of patches after each stage.

    `scorer` is `query_key` (products of the class token's query and the key of each patch) or `none`. `own_scorer`:
    whether the scorer has weights of its own instead of those of a block, with at most `heads` heads. `interpreters` is
    the number of stages, if it is an option.
    """

    keep_rates: Sequence[float]
    scorer: str
    keep_spread: float = 0.0
    own_scorer: bool = True
    heads: int | None = None
    interpreters: int | None = None

    depends_on_data = True  # each image keeps its own number of patches

    @property
    def faster_by(self) -> str:
        """Tokens are dropped, at the planned rates."""
        rates = ", ".join(f"{100 * rate:.0f}" for rate in self.keep_rates)
        return f"tokens dropped, {rates} % of the patches left as planned"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """Tokens per block and the scorers, at the measured keep rates if runs have measured them."""
        measured_rates = KeepRates.measured(measured.results, len(self.keep_rates))
        rates = measured_rates or KeepRates.planned(self.keep_rates, self.keep_spread)
        tokens = TokensPerBlock.from_keep_rates(rates, model.token_blocks, model.patches)
        layers = model.layers(model.tokens)
        return ModelChanges(
            layer_tokens={layer.name: tokens.mean[layer.block] for layer in layers if layer.block is not None},
            attention_share=sum(tokens.square) / len(tokens.square),
            added_params=self._scorer_params(model),
            added_macs=self._scorer_macs(model, rates.mean),
            added_macs_as_run=self._scorer_macs_as_run(model, rates.mean),
            are_macs_exact=measured_rates is not None,
            is_measured=measured_rates is not None,
        )

    def measured_options(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Measured keep rates, and the spread of a uniform distribution with the measured mean square."""
        rates = KeepRates.measured(results, len(self.keep_rates))
        if rates is None:
            return None
        # Uniform within a relative spread s around the mean: the mean square is mean^2 (1 + s^2 / 3).
        spreads = [
            math.sqrt(3 * max(0.0, square / mean**2 - 1)) if mean else 0.0
            for mean, square in zip(rates.mean, rates.square, strict=True)
        ]
        return {"keep_rates": list(rates.mean), "keep_spread": min(1.0, sum(spreads) / len(spreads))}

    def errors(self, model: Geometry, published: Geometry, method: str, backbone: str) -> list[str]:
        """Keep rates that cannot be, more stages than blocks, or heads that do not divide the width."""
        rates = self.keep_rates
        if not _are_keep_rates(rates):
            return [
                f"method.tokens.keep_rates={rates}: must be a list of numbers in (0, 1] that does not increase, "
                "such as [0.8, 0.6]"
            ]
        if not model.tokens:
            return []  # reported for every method of this kind
        errors = []
        if self.interpreters is not None and len(rates) != self.interpreters:
            errors.append(
                f"method.tokens.keep_rates={rates}: {count_of(len(rates), 'rate')} for "
                f"{count_of(self.interpreters, 'interpreter')}; give one for each"
            )
        blocks = min(model.token_blocks, published.token_blocks)
        if len(rates) > blocks:
            errors.append(
                f"method.tokens.keep_rates={rates}: {count_of(len(rates), 'stage')}, but backbone={backbone} has "
                f"{count_of(blocks, 'block')}; leave some out"
            )
        for geometry in (model, published):
            if self.own_scorer and self.heads and geometry.token_width % min(self.heads, geometry.attention_heads):
                errors.append(
                    f"method.tokens.heads={self.heads}: does not divide the width {geometry.token_width} of "
                    f"backbone={backbone}"
                )
        return errors

    def _scorer_params(self, model: Geometry) -> int:
        if self.scorer == "none" or not self.own_scorer:
            return 0
        width = model.token_width
        return len(self.keep_rates) * (2 * width * (width + 1) + 2 * width)  # query, key and a norm

    def _scorer_macs(self, model: Geometry, rates: Sequence[float]) -> float:
        """A query of the class token, and a key and a product for each patch that reaches the stage."""
        if self.scorer == "none":
            return 0
        width = model.token_width
        return sum(patches * (width * width + width) + width * width for patches in _reaching(model, rates))

    def _scorer_macs_as_run(self, model: Geometry, rates: Sequence[float]) -> float:
        """The same without keys: the query is multiplied by the key weights instead, see `class_token_scores`."""
        if self.scorer == "none":
            return 0
        width = model.token_width
        heads = min(self.heads or model.attention_heads, model.attention_heads)
        class_token = 0 if self.own_scorer else 1  # a block's own attention includes the class token
        return sum((patches + class_token) * heads * width + 2 * width * width for patches in _reaching(model, rates))


@dataclass(frozen=True)
class MixedKeys(CostModel):
    """Keys and values are learned mixtures of tokens: `rank` for `reference_tokens` tokens, or proportionally."""

    rank: int
    reference_tokens: int

    @property
    def faster_by(self) -> str:
        """Attention has fewer keys."""
        return f"keys and values of {count_of(self.rank, 'mixture')} of tokens"

    def changes(self, model: Geometry, measured: Measurements = NOT_MEASURED) -> ModelChanges:
        """Two rank x tokens matrices in each block, whose products take as many MACs as attention over the mixtures."""
        rank = self._rank(model)
        return ModelChanges(
            attention_share=2 * rank / model.tokens,
            added_params=model.token_blocks * 2 * rank * model.tokens,
        )

    def class_options(self, model: Geometry, tokens: int) -> dict[str, Any]:
        """The rank for this model's number of tokens."""
        return {"rank": self._rank(model)}

    def _rank(self, model: Geometry) -> int:
        return min(model.tokens, max(1, round(model.tokens * self.rank / self.reference_tokens)))


def _are_keep_rates(rates: Any) -> bool:
    return (
        isinstance(rates, list | tuple)
        and len(rates) > 0
        and all(isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate <= 1 for rate in rates)
        and list(rates) == sorted(rates, reverse=True)
    )


def _reaching(model: Geometry, rates: Sequence[float]) -> list[float]:
    """Patches that reach each stage."""
    return [model.patches * rate for rate in (1.0, *rates[:-1])]
