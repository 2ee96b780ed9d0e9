"""Scores that every rank of a distributed training sees alike."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(score: Tensor) -> Tensor:
    """The mean of a tensor over all ranks; the tensor itself in a training of one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return score
    total = score.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
