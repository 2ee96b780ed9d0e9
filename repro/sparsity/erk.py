"""How a total density is spread over layers: Erdos-Renyi-Kernel and uniform. Pure arithmetic, no torch.

ERK: Evci et al., "Rigging the Lottery" (ICML 2020), section 3; SViTE uses it over every weight of 2 or 4 dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from repro.errors import UserError


def erk_densities(
    shapes: Mapping[str, tuple[int, ...]], density: float, units: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Per-layer densities of the Erdos-Renyi-Kernel distribution.

    A layer's density is proportional to sum(shape) / prod(shape). Layers that would pass 1 are made dense and the
    common factor is solved again, so that the total over all layers is `density`.

    Args:
        shapes: weight shape of each layer, e.g. `(out, in)` or `(out, in, kernel, kernel)`.
        density: fraction of all weights that stay, in (0, 1].
        units: what a weight of each layer costs, where `density` is to be that of the cost; 1 where not given.

    Returns:
        A density in (0, 1] for each layer, in the order of `shapes`.

    Raises:
        UserError: for a density outside (0, 1] or an empty layer.
    """
    _check(shapes, density)
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) * (units[name] if units else 1) for name, shape in shapes.items()}
    dense: set[str] = set()
    while len(dense) < len(shapes):
        kept = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = kept / sum(raw[name] * sizes[name] for name in shapes if name not in dense)
        # One at a time, the densest first: making one layer dense lowers the factor of the others.
        largest = max(raw[name] for name in shapes if name not in dense)
        if factor * largest <= 1:
            return {name: 1.0 if name in dense else factor * raw[name] for name in shapes}
        dense |= {name for name in shapes if name not in dense and raw[name] == largest}
    return dict.fromkeys(shapes, 1.0)


def uniform_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """The same density for every layer. Raises as `erk_densities`."""
    _check(shapes, density)
    return dict.fromkeys(shapes, float(density))


def layer_densities(
    distribution: str,
    shapes: Mapping[str, tuple[int, ...]],
    density: float,
    units: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Densities by the name of a distribution. `global` starts uniform: where it ends is decided by the weights."""
    return erk_densities(shapes, density, units) if distribution == "erk" else uniform_densities(shapes, density)


def _check(shapes: Mapping[str, tuple[int, ...]], density: float) -> None:
    if not 0 < density <= 1:
        raise UserError(f"density={density}: must be in (0, 1]")
    for name, shape in shapes.items():
        if math.prod(shape) == 0:
            raise UserError(f"layer {name} of shape {shape} has no weights")
