"""Small trainings for tests: run in this process, stopped where a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from repro.config import Config, compose
from repro.data.splits import Splits, load_splits
from repro.runs.record import Record, record_for
from repro.tracking.sinks import JsonlSink, Sinks
from repro.training.distributed import World
from repro.training.loop import Surroundings, Trainer

WORLD = World(0, 1, torch.device("cpu"))
WALL_CLOCK = ("step_time_ms", "images_per_s", "wall_s")


def tiny(*overrides: str) -> Config:
    """A run of a few seconds: 4 updates an epoch, 2 epochs, masks changing in most updates."""
    return compose(["backbone=deit_tiny", "scale=smoke", "tracker=none", *overrides])


def splits_of(config: Config) -> Splits:
    """The run's data."""
    return load_splits(config.data, config.recipe, config.model)


class OpenOnlyToWrite:
    """The record's metrics file, closed between two entries: a test may drop a trainer at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: Mapping[str, Any]) -> None:
        sink = JsonlSink(self.path)
        sink.write(entry)
        sink.close(None)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Nothing is open."""


def trainer(config: Config, folder: Path, should_stop: Callable[[], str | None] = lambda: None) -> Trainer:
    """A trainer over the record in `folder`, with its metrics file."""
    record = record_for(folder, config, "t", "r")
    record.create(config, "t", "r")
    sinks = Sinks([OpenOnlyToWrite(record.metrics_file)])
    return Trainer(
        config, splits_of(config), Surroundings(WORLD, sinks, record.checkpoint_dir, lambda *_: None, should_stop)
    )


def metrics(folder: Path, config: Config) -> list[dict[str, Any]]:
    """The metric lines of a run, less what the clock says."""
    lines = Record(record_for(folder, config, "t", "r").path).metrics()
    return [{name: value for name, value in line.items() if name not in WALL_CLOCK} for line in lines]


def tensors(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Every tensor and number in a nested state, by path."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    if isinstance(state, dict):
        pairs = [(f"{prefix}/{key}", value) for key, value in state.items() if key not in WALL_CLOCK]
    elif isinstance(state, list | tuple):
        pairs = [(f"{prefix}/{index}", value) for index, value in enumerate(state)]
    elif isinstance(state, bool | int | float):
        return {prefix: torch.tensor(state, dtype=torch.float64)}
    else:
        return {}
    return {path: tensor for name, value in pairs for path, tensor in tensors(value, name).items()}
