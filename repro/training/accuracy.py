"""Accuracy of a model on labeled images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.data.unreadable_files import NOT_COUNTED


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy in percent, and the mean cross entropy, over `images` images."""

    top1_pct: float
    top5_pct: float
    loss: float
    images: int

    @classmethod
    def from_totals(cls, totals: Tensor) -> Accuracy:
        """Compute the accuracy from the sums that `count_correct` returns, added up over ranks."""
        top1, top5, loss, count = totals.tolist()
        return cls(100 * top1 / count, 100 * top5 / count, loss / count, round(count))


@torch.inference_mode()
def count_correct(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Tensor:
    """Return (correct top-1, correct top-5, summed loss, images) of this rank's batches, float64 on `device`.

    Images with the label `NOT_COUNTED` are left out.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=device)
    try:
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            logits = model(images).float()
            predictions = logits.topk(min(5, logits.shape[1]), dim=1).indices
            correct = predictions == labels[:, None]
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            totals[:3] += torch.stack([correct[:, 0].sum(), correct.any(1).sum(), loss]).to(totals)
            totals[3] += (labels != NOT_COUNTED).sum()
    finally:
        model.train(was_training)
    return totals
