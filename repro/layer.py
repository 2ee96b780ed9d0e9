"""One prunable weight of a backbone, and how its blocks fall into groups: plain values, for those who only compute."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One prunable weight: its shape, and how often each entry is used for one image.

    `rows_of` and `columns_of` name the units (a key of `Geometry.units`) that the rows and columns belong to and leave
    with; empty where there are none. `block` is the number of the transformer block that the layer is in, if any.
    """

    name: str
    shape: tuple[int, ...]
    uses: int
    rows_of: str = ""
    columns_of: str = ""
    block: int | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def stage_starts(blocks: int, stages: int) -> tuple[int, ...]:
    """The first block of each of `stages` groups, as even as can be: 12 blocks in 3 begin at 0, 4 and 8."""
    return tuple(stage * blocks // stages for stage in range(stages))
