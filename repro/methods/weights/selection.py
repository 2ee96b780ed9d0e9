"""Selection of the k lowest or highest entries. Ties are broken by position: the same on every rank and device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class NotANumber(ValueError):
    """A score is NaN: the training has diverged."""


def lowest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates with the lowest scores.

    Args:
        scores: any shape; not NaN where `candidates` is true.
        candidates: bool, same shape.
        count: 0 to the number of candidates.

    Returns:
        A bool tensor of the same shape with exactly `count` true entries. Ties go to the first in memory order.

    Raises:
        NotANumber: if a candidate's score is NaN.
        ValueError: if there are fewer candidates than `count`.
    """
    return _extreme(scores, candidates, count, highest=False)


def highest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates with the highest scores; see `lowest`."""
    return _extreme(scores, candidates, count, highest=True)


def count_true(mask: Tensor) -> int:
    """Count the true entries of a bool tensor."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


def _extreme(scores: Tensor, candidates: Tensor, count: int, *, highest: bool) -> Tensor:
    """Select with NumPy's introselect, on the CPU for every device, because masks seldom change.

    torch's kthvalue is several times slower there, and its parallel passes wait for all threads, which takes longer
    than the passes if other processes use the cores.
    """
    if count == 0:
        return torch.zeros_like(candidates)
    floats = scores.detach().float() if scores.dtype is torch.bfloat16 else scores.detach()
    array, allowed = floats.cpu().numpy().reshape(-1), candidates.cpu().numpy().reshape(-1)
    values = np.compress(allowed, array)
    if count > values.size:
        raise ValueError(f"cannot select {count} of {values.size} candidates")
    if np.isnan(values.min()):  # the minimum is NaN if any value is
        raise NotANumber("a score is not a number")
    index = values.size - count if highest else count - 1
    values.partition(index)
    threshold = values[index]
    selected = array > threshold if highest else array < threshold
    selected &= allowed
    ties = array == threshold
    ties &= allowed
    missing = count - int(np.count_nonzero(selected))
    if missing == np.count_nonzero(ties):
        selected |= ties
    else:
        selected[np.flatnonzero(ties)[:missing]] = True
    return torch.from_numpy(selected).view(candidates.shape).to(candidates.device)
