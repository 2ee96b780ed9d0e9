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
        scores: any shape; not NaN where `candidates` is true.
        candidates: bool, same shape.
        count: 0 to the number of candidates.

    Returns:
        A bool tensor of the same shape with exactly `count` true entries. Among equal scores the first in memory
        order win, whatever the algorithm underneath.

    Raises:
        NotANumber: where a candidate's score is NaN.
        ValueError: where there are fewer candidates than `count`.
    """
    if count == 0:
        return torch.zeros_like(candidates)
    values = _compress(scores, candidates)
    if count > values.numel():
        raise ValueError(f"{count} entries wanted of {values.numel()} candidates")
    # A NaN anywhere is the minimum, to torch: one quick pass, without a mask of its own.
    if bool(values.amin().isnan()):
        raise NotANumber("a score is not a number")
    threshold = _kth_lowest(values, count)
    chosen = (scores < threshold).logical_and_(candidates)
    missing = count - int(chosen.sum())
    ties = (scores == threshold).logical_and_(candidates).flatten().nonzero().flatten()
    chosen.view(-1)[ties[:missing]] = True
    return chosen


def highest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates of highest score; otherwise as `lowest`."""
    return lowest(-scores, candidates, count)


def _compress(scores: Tensor, candidates: Tensor) -> Tensor:
    """The candidates' scores, flat, in a tensor of their own. On a CPU numpy's compress is ten times faster."""
    if scores.device.type != "cpu":
        return scores[candidates]
    values = scores.detach().float() if scores.dtype is torch.bfloat16 else scores.detach()
    compressed = np.compress(candidates.detach().numpy().reshape(-1), values.numpy().reshape(-1))
    return torch.from_numpy(compressed)


def _kth_lowest(values: Tensor, count: int) -> Tensor:
    """The `count`-th lowest value; `values` are in disorder after. On a CPU numpy's introselect beats any sort."""
    if values.device.type == "cpu":
        array = values.numpy()
        array.partition(count - 1)
        return values[count - 1].clone()
    return values.kthvalue(count).values
