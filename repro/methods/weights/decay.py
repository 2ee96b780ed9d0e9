"""The fraction of active weights that a mask update exchanges, over the course of training."""

from __future__ import annotations

import math

from repro.counting.schedule import UpdateSchedule

RELEASED_FLOOR = 0.005  # final value of the released code's cosine (SViTE repository, sparse training core)


def update_fraction(kind: str, alpha: float, update: int, schedule: UpdateSchedule) -> float:
    """Return the fraction of active entries to exchange after optimizer update `update`.

    `as_paper`: alpha/2 (1 + cos(pi t / T_end)) (SViTE paper, Algorithm 1). `as_released`: a cosine from alpha to 0.005
    over all updates of training, regardless of T_end.
    """
    if kind == "as_paper":
        return alpha / 2 * (1 + math.cos(math.pi * min(update, schedule.end) / schedule.end))
    return RELEASED_FLOOR + (alpha - RELEASED_FLOOR) / 2 * (1 + math.cos(math.pi * update / schedule.total))
