"""How much of the active weights an update exchanges, over training."""

from __future__ import annotations

import math

from repro.schedule import UpdateSchedule

RELEASED_FLOOR = 0.005  # where the released code's cosine ends (SViTE repository, sparse training core)


def update_fraction(kind: str, alpha: float, update: int, schedule: UpdateSchedule) -> float:
    """The fraction of active entries to exchange after optimizer update `update`.

    `as_paper`: alpha/2 (1 + cos(pi t / T_end)) (SViTE paper, Algorithm 1). `as_released`: a cosine from alpha to 0.005
    over all updates of the training, whatever T_end.
    """
    if kind == "as_paper":
        return alpha / 2 * (1 + math.cos(math.pi * min(update, schedule.end) / schedule.end))
    if kind == "as_released":
        return RELEASED_FLOOR + (alpha - RELEASED_FLOOR) / 2 * (1 + math.cos(math.pi * update / schedule.total))
    raise ValueError(f"decay {kind!r}: as_paper or as_released")
