"""Accuracy on the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.training.distributed import World


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers among the first one and the first five guesses, in percent, and the mean cross entropy.

    `images` is how many they are of: each was counted once.
    """

    top1_pct: float
    top5_pct: float
    loss: float
    images: int

    @classmethod
    def of(cls, totals: Tensor) -> Accuracy:
        """From what `tally` counted, added up over ranks."""
        top1, top5, loss, count = totals.tolist()
        return cls(100 * top1 / count, 100 * top5 / count, loss / count, round(count))


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World,
    poll: Callable[[], None] = lambda: None,
    polls: int = 0,
) -> Accuracy:
    """Accuracy of `model` over all ranks' batches. After each of the first `polls` batches `poll` may raise to stop."""
    return Accuracy.of(world.total(tally(model, batches, world.device, poll, polls)))


@torch.inference_mode()
def tally(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
    polls: int = 0,
) -> Tensor:
    """Of this rank's batches, float64 on `device`: right first guesses, right among five, sum of losses, images."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=device)
    try:
        for number, (images, labels) in enumerate(batches):
            images, labels = images.to(device), labels.to(device)
            logits = model(images).float()
            guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
            right = guesses == labels[:, None]
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            totals[:3] += torch.stack([right[:, 0].sum(), right.any(1).sum(), loss]).to(totals)
            totals[3] += len(labels)
            if number < polls:
                poll()
    finally:
        model.train(was_training)
    return totals
