"""Training throughput. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """Training images per second on one device, where the number comes from, and the device's power if known."""

    images_per_s: float
    device: str
    known_from: str
    watts: float | None = None
