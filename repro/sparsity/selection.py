"""Choosing the k lowest or highest of some entries, ties broken by position: the same on every rank and device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class NotANumber(ValueError):
    """A score is NaN: the training has diverged, and no choice among such scores means anything."""


def lowest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates of lowest score.

    Args:
        scores: any shape, finite where `candidates` is true.
        candidates: bool, same shape.
        count: 0 to the number of candidates.

    Returns:
        A bool tensor of the same shape with exactly `count` true entries. Among equal scores the first in memory
        order win, whatever the algorithm underneath.

    Raises:
        NotANumber: where a candidate's score is NaN.
        ValueError: where there are fewer candidates than `count`.
    """
    chosen = torch.zeros_like(candidates)
    if count == 0:
        return chosen
    values = scores[candidates]
    if count > values.numel():
        raise ValueError(f"{count} entries wanted of {values.numel()} candidates")
    if bool(torch.isnan(values).any()):
        raise NotANumber("a score is not a number")
    threshold = _kth_lowest(values, count)
    torch.logical_and(candidates, scores < threshold, out=chosen)
    missing = count - int(chosen.sum())
    ties = (candidates & (scores == threshold)).flatten().nonzero().flatten()
    chosen.view(-1)[ties[:missing]] = True
    return chosen


def highest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates of highest score; otherwise as `lowest`."""
    return lowest(-scores, candidates, count)


def _kth_lowest(values: Tensor, count: int) -> Tensor:
    """The `count`-th lowest value. On a CPU numpy's introselect is several times faster than a sort."""
    if values.device.type == "cpu":
        array = values.detach().float().numpy() if values.dtype is torch.bfloat16 else values.detach().numpy()
        return torch.as_tensor(np.partition(array, count - 1)[count - 1], dtype=values.dtype)
    return values.kthvalue(count).values
