"""Scores that every rank of a distributed training sees alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(score: Tensor) -> Tensor:
    """The mean of a tensor over all ranks; the tensor itself in a training of one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return score
    total = score.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def as_on_the_first(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Numbers as the first rank has them: what follows from equal weights, but may be added up in another order."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(numbers)
    shared = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return [float(value) for value in shared.tolist()]
