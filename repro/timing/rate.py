"""A training throughput. This module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """The training throughput of one device."""

    images_per_s: float
    device: str  # the name of a GPU, `cuda`, or `cpu`
    known_from: str  # where the number comes from
    watts: float | None = None  # the power of the device, if known
