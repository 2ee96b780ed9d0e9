"""Check whether weights match a row: compare their zeros, or heads and neurons, with what the row's method plans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from repro.config import Config
from repro.config.costs import method_changes
from repro.counting.changes import ModelChanges
from repro.counting.layers import Layer
from repro.errors import count_of
from repro.inference.shrink import active_heads, active_neurons, blocks_of
from repro.runs.adopted import RowCheck

TOTAL_POINTS = 0.5  # tolerance of the share of zeros over all masked layers, in percentage points
LAYER_POINTS, LAYER_SIGMAS = 2.0, 4.0  # the same for a single layer, whose mask entries are sampled independently
NEURONS_PCT = 0.5  # tolerance of the number of neurons; the number of heads must be exact


@dataclass(frozen=True)
class Found:
    """Sparsity of a model's weights: share of zeros by layer, and heads and neurons by block whose output varies."""

    zeros: Mapping[str, float]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def find_sparsity(model: nn.Module, layers: list[Layer]) -> Found:
    """Count in the weights themselves, not in masks that may be stored next to them."""
    blocks = blocks_of(model)
    return Found(
        {layer.name: _zeros(model.get_parameter(f"{layer.name}.weight")) for layer in layers},
        tuple(len(active_heads(block.attn)) for block in blocks),
        tuple(len(active_neurons(block.mlp)) for block in blocks),
    )


def _zeros(weight: Tensor) -> float:
    return 1 - int(weight.count_nonzero()) / weight.numel()


def check_row(found: Found, config: Config) -> tuple[list[RowCheck], list[RowCheck]]:
    """Compare weights with a row's config; return the checks that pass, and those that fail.

    For a row that removes heads and neurons, their numbers are compared, otherwise the share of zeros over all masked
    layers. The distribution over layers is only reported and never fails.
    """
    changes = method_changes(config.model, config.method)
    results = _units(found, config, changes) if changes.unit_shares else _shares(found, config, changes)
    good = [check for check, is_good in results if is_good]
    return good, [check for check, is_good in results if not is_good]


def _units(found: Found, config: Config, changes: ModelChanges) -> list[tuple[RowCheck, bool]]:
    results = []
    for kind, counts, allowed_pct in (("heads", found.heads, 0.0), ("neurons", found.neurons, NEURONS_PCT)):
        planned = round(config.model.units[kind] * changes.unit_shares.get(kind, 1.0)) * len(counts)
        tolerance = f"{allowed_pct:g} %" if allowed_pct else "exact"
        check = RowCheck(kind, f"{sum(counts)} of {config.model.units[kind] * len(counts)}", str(planned), tolerance)
        results.append((check, abs(sum(counts) - planned) <= planned * allowed_pct / 100))
    return results


def _shares(found: Found, config: Config, changes: ModelChanges) -> list[tuple[RowCheck, bool]]:
    layers = {layer.name: layer for layer in config.model.layers(config.model.tokens)}
    masked = {name: layers[name] for name in changes.densities} or layers
    planned = {name: 1 - changes.densities.get(name, 1.0) for name in masked}
    size = sum(layer.size for layer in masked.values())
    total, wanted = (
        sum(shares[name] * masked[name].size for name in masked) / size for shares in (found.zeros, planned)
    )
    where = "all layers" if len(masked) == len(layers) else count_of(len(masked), "layer")
    check = RowCheck(f"zeros in {where}", _pct(total), _pct(wanted), f"{TOTAL_POINTS:g} points")
    results = [(check, 100 * abs(total - wanted) <= TOTAL_POINTS)]
    if not changes.are_macs_exact or not changes.densities:  # training determines the distribution of zeros over layers
        return results
    off = {name: abs(found.zeros[name] - share) for name, share in planned.items()}
    allowed = {name: _allowed(share, masked[name].size) for name, share in planned.items()}
    worst = max(off, key=lambda name: off[name] - allowed[name])
    tolerance = f"{100 * allowed[worst]:.1f} points"
    if off[worst] > allowed[worst]:
        tolerance += ", exceeded: another split over layers than the row's"
    what = f"zeros in {worst}, the furthest off"
    return [*results, (RowCheck(what, _pct(found.zeros[worst]), _pct(planned[worst]), tolerance), True)]


def _allowed(share: float, entries: int) -> float:
    return max(LAYER_POINTS / 100, LAYER_SIGMAS * math.sqrt(share * (1 - share) / entries))


def _pct(share: float) -> str:
    return f"{100 * share:.2f} %"
