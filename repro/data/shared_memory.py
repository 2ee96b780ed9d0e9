"""Checks of /dev/shm, through which loader workers pass their batches. This module does not import torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from repro.config import Config
from repro.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
PREFETCH = 2  # batches that each worker loads in advance, torch's default
REMEDY = "start the container with --shm-size or --ipc=host, or set data.workers=0 (repro eval: --workers 0)"


def is_shared_memory_error(error: Exception) -> bool:
    """Return whether torch raised this error because /dev/shm is full."""
    text = str(error)
    return "shared memory" in text and ("No space left on device" in text or "Bus error" in text)


def shared_memory_error() -> UserError:
    """Return the error of a full /dev/shm."""
    size = _mib(shutil.disk_usage(SHARED_MEMORY).total)
    return UserError(f"{SHARED_MEMORY} is full ({size}): data workers pass batches through it; {REMEDY}")


def needed_bytes(config: Config, ranks: int) -> int:
    """Estimate the size, in bytes, of all batches that the workers of `ranks` processes load in advance.

    Training and evaluation are added, because the workers of a training keep their batches while it is evaluated.
    """
    values = math.prod(config.model.input_shape)
    bytes_per_value = 4.0 if config.data.decoder == "pil" else 1.25  # `fast`: uint8 plus the noise of random erasing
    images = config.recipe.micro_batch * bytes_per_value + config.recipe.eval_batch * 4
    return int(ranks * config.data.workers * PREFETCH * images * values)


def check_shared_memory(config: Config, ranks: int) -> tuple[bool, str]:
    """Return whether the free shared memory suffices, and a line with the free and the needed size."""
    free, needed = shutil.disk_usage(SHARED_MEMORY).free, needed_bytes(config, ranks)
    workers = ranks * config.data.workers
    return free >= needed, f"{_mib(free)} free, {workers} data workers need up to {_mib(needed)}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
