"""Layer densities for a given total density: Erdos-Renyi-Kernel and uniform.

ERK: Evci et al., "Rigging the Lottery" (ICML 2020), section 3; SViTE applies it to every weight of 2 or 4 dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def erk_densities(
    shapes: Mapping[str, tuple[int, ...]], density: float, unit_costs: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Per-layer densities of the Erdos-Renyi-Kernel distribution.

    A layer's density is proportional to sum(shape) / prod(shape). Layers whose density would exceed 1 are made dense,
    and the common factor is solved for again, so that the total over all layers is `density`.

    Args:
        shapes: weight shape of each layer, e.g. `(out, in)` or `(out, in, kernel, kernel)`.
        density: remaining fraction of all weights, in (0, 1].
        unit_costs: cost of one weight of each layer, if `density` is a fraction of the cost; None if all cost 1.

    Returns:
        A density in (0, 1] for each layer, in the order of `shapes`.
    """
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    sizes = {name: math.prod(shape) * (unit_costs[name] if unit_costs else 1) for name, shape in shapes.items()}
    dense: set[str] = set()
    while len(dense) < len(shapes):
        remaining = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = remaining / sum(raw[name] * sizes[name] for name in shapes if name not in dense)
        # One at a time, the densest first: capping a layer at 1 raises the factor of the others.
        largest = max(raw[name] for name in shapes if name not in dense)
        if factor * largest <= 1:
            return {name: 1.0 if name in dense else factor * raw[name] for name in shapes}
        dense |= {name for name in shapes if name not in dense and raw[name] == largest}
    return dict.fromkeys(shapes, 1.0)


def layer_densities(
    distribution: str,
    shapes: Mapping[str, tuple[int, ...]],
    density: float,
    unit_costs: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Layer densities by the name of a distribution. `global` starts uniform; training determines the final ones."""
    return erk_densities(shapes, density, unit_costs) if distribution == "erk" else dict.fromkeys(shapes, density)
