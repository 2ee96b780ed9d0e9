"""Mixed precision: what a recipe's `amp` means, on whatever device it runs."""

from __future__ import annotations

import torch


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Forward passes in bfloat16 where `amp` is `bfloat16`; in the weights' own precision where it is `none`.

    The recipe alone decides, not the device: `amp` is in a run's signature, so two runs of one signature are of one
    precision. bfloat16 has float32's range: no loss is scaled, and no update (nor its mask update) is skipped. Weights,
    gradients and scores stay float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bfloat16")
