"""Files that broke while they were read, over all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repro.data.splits import Lost
from repro.training.distributed import World


def lost_files(lost: Sequence[Lost], world: World) -> int:
    """How many files broke while they were read, on any rank: each is named in the log. Every rank must call it."""
    marks = (world.total(some.marks.to(world.device, torch.int64)) for some in lost)
    return sum(int((each > 0).sum()) for each in marks)
