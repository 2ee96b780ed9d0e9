"""Accuracy on the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.training.distributed import World


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers among the first one and the first five guesses, in percent, and the mean cross entropy."""

    top1_pct: float
    top5_pct: float
    loss: float


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World,
    poll: Callable[[], None] = lambda: None,
    polls: int = 0,
) -> Accuracy:
    """Accuracy of `model` over all ranks' batches. After each of the first `polls` batches `poll` may raise to stop."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=world.device)
    try:
        for number, (images, labels) in enumerate(batches):
            images, labels = images.to(world.device), labels.to(world.device)
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
    top1, top5, loss, count = world.total(totals).tolist()
    return Accuracy(100 * top1 / count, 100 * top5 / count, loss / count)
