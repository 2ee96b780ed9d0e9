"""How fast something trains, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """Training images per second on one device, and how that is known. `watts` is the device's power, where known."""

    images_per_s: float
    device: str
    known_from: str
    watts: float | None = None
