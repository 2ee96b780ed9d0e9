"""Everything a training holds between two updates: what a checkpoint saves and a resumed run takes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from repro.parts import MethodPart
from repro.training.recipe import TrainingParts


@dataclass
class Best:
    """The best evaluation so far. `epoch` counts from 1; 0 means none."""

    top1_pct: float = -1.0
    epoch: int = 0


@dataclass
class TrainingState:
    """A training after `update` optimizer updates, of which `evaluated_epochs` epochs have been evaluated."""

    model: nn.Module
    training: TrainingParts
    parts: list[MethodPart]
    update: int = 0
    evaluated_epochs: int = 0
    best: Best = field(default_factory=Best)
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_updates: int = 0
    wall_s: float = 0.0
    last: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be loaded with `weights_only=True`."""
        return {
            "update": self.update,
            "evaluated_epochs": self.evaluated_epochs,
            "best": {"top1_pct": self.best.top1_pct, "epoch": self.best.epoch},
            "loss_sum": self.loss_sum,
            "loss_updates": self.loss_updates,
            "wall_s": self.wall_s,
            "last": self.last,
            "model": self.model.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
            "ema": self.training.ema.module.state_dict() if self.training.ema else None,
            "parts": [part.state_dict() for part in self.parts],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.update = state["update"]
        self.evaluated_epochs = state["evaluated_epochs"]
        self.best = Best(**state["best"])
        self.loss_sum.copy_(state["loss_sum"])
        self.loss_updates = state["loss_updates"]
        self.wall_s = state["wall_s"]
        self.last = state["last"]
        self.model.load_state_dict(state["model"])
        self.training.optimizer.load_state_dict(state["optimizer"])
        if self.training.ema:
            self.training.ema.module.load_state_dict(state["ema"])
        for part, part_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(part_state)

    def weights(self) -> dict[str, Any]:
        """What an evaluation needs: the model's weights and those of its EMA."""
        ema = self.training.ema
        return {
            "update": self.update,
            "model": self.model.state_dict(),
            "ema": ema.module.state_dict() if ema else None,
            "parts": [part.state_dict() for part in self.parts],
        }
