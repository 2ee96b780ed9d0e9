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
    return _extreme(scores, candidates, count, highest=False)


def highest(scores: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark the `count` candidates of highest score; otherwise as `lowest`."""
    return _extreme(scores, candidates, count, highest=True)


def _extreme(scores: Tensor, candidates: Tensor, count: int, *, highest: bool) -> Tensor:
    if count == 0:
        return torch.zeros_like(candidates)
    extreme = _extreme_by_numpy if scores.device.type == "cpu" else _extreme_by_torch
    return extreme(scores, candidates, count, highest=highest)


def _extreme_by_torch(scores: Tensor, candidates: Tensor, count: int, *, highest: bool) -> Tensor:
    """At least one entry, on whatever device the scores are."""
    scores, may = scores.flatten(), candidates.flatten()
    values = scores[may]
    _check(values.numel(), count, bool(values.isnan().any()))
    rank = values.numel() - count + 1 if highest else count
    threshold = values.kthvalue(rank).values
    chosen = (scores > threshold if highest else scores < threshold).logical_and_(may)
    ties = (scores == threshold).logical_and_(may).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen.view(candidates.shape)


def count_true(mask: Tensor) -> int:
    """How many entries of a bool tensor are true."""
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())


def _extreme_by_numpy(scores: Tensor, candidates: Tensor, count: int, *, highest: bool) -> Tensor:
    """The same on the CPU: introselect on the candidates alone, in a few passes of one thread.

    torch's kth value is several times slower, and its parallel passes wait for every thread at each of them, which
    costs more than the passes where other processes have the cores.
    """
    floats = scores.detach().float() if scores.dtype is torch.bfloat16 else scores.detach()
    array, may = floats.numpy().reshape(-1), candidates.numpy().reshape(-1)
    values = np.compress(may, array)
    # The minimum is NaN where anything is.
    _check(values.size, count, values.size > 0 and bool(np.isnan(values.min())))
    place = values.size - count if highest else count - 1
    values.partition(place)
    threshold = values[place]
    chosen = array > threshold if highest else array < threshold
    chosen &= may
    ties = array == threshold
    ties &= may
    missing = count - int(np.count_nonzero(chosen))
    if missing == np.count_nonzero(ties):
        chosen |= ties
    else:
        chosen[np.flatnonzero(ties)[:missing]] = True
    return torch.from_numpy(chosen).view(candidates.shape)


def _check(candidates: int, count: int, has_nan: bool) -> None:
    if count > candidates:
        raise ValueError(f"{count} entries wanted of {candidates} candidates")
    if has_nan:
        raise NotANumber("a score is not a number")
