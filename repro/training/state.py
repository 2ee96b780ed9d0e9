"""The training state between two updates: what a checkpoint saves and a resumed run loads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from repro.methods.base import MethodPart
from repro.training.recipe import Optimization


@dataclass
class Best:
    """The best evaluation so far. `epoch` counts from 1; 0 means that there is no evaluation yet."""

    top1_pct: float = -1.0
    epoch: int = 0


@dataclass
class TrainingState:
    """The state of training after `update` optimizer updates.

    Attributes:
        evaluated_epochs: epochs that have ended, with or without an evaluation.
        loss_sum: sum of the losses of the `loss_updates` updates since the last log entry, on the model's device.
        wall_s: seconds of training and evaluation over all attempts.
        last: values of the latest evaluation.
    """

    model: nn.Module
    optimization: Optimization
    parts: list[MethodPart]
    update: int = 0
    evaluated_epochs: int = 0
    best: Best = field(default_factory=Best)
    loss_sum: torch.Tensor = field(init=False)
    loss_updates: int = 0
    wall_s: float = 0.0
    last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values, so that a checkpoint can be loaded with `weights_only=True`."""
        ema = self.optimization.ema
        return {
            "update": self.update,
            "evaluated_epochs": self.evaluated_epochs,
            "best": asdict(self.best),
            "loss_sum": self.loss_sum,
            "loss_updates": self.loss_updates,
            "wall_s": self.wall_s,
            "last": self.last,
            "model": self.model.state_dict(),
            "optimizer": self.optimization.optimizer.state_dict(),
            "ema": ema.module.state_dict() if ema else None,
            "parts": [part.state_dict() for part in self.parts],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.update = state["update"]
        self.evaluated_epochs = state["evaluated_epochs"]
        self.best = Best(**state["best"])
        self.loss_sum.copy_(state["loss_sum"])
        self.loss_updates = state["loss_updates"]
        self.wall_s = state["wall_s"]
        self.last = state["last"]
        self.model.load_state_dict(state["model"])
        self.optimization.optimizer.load_state_dict(state["optimizer"])
        if self.optimization.ema:
            self.optimization.ema.module.load_state_dict(state["ema"])
        for part, part_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(part_state)

    def part_metrics(self) -> dict[str, float]:
        """Return the current metrics of all method parts."""
        return {name: value for part in self.parts for name, value in part.metrics().items()}
