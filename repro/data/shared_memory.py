"""/dev/shm, through which loader processes pass their batches. No torch: `repro doctor` checks its size."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from repro.config import Config
from repro.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
PREFETCH = 2  # batches that each worker loads ahead, torch's default
REMEDY = "start the container with --shm-size or --ipc=host, or set data.workers=0 (repro eval: --workers 0)"


def is_shared_memory_error(error: Exception) -> bool:
    """Whether torch raised an error because /dev/shm is full."""
    text = str(error)
    return "shared memory" in text and ("No space left on device" in text or "Bus error" in text)


def shared_memory_error() -> UserError:
    """Return the error of a full /dev/shm."""
    return UserError(f"{SHARED_MEMORY} is full ({_mib(_size())}): data workers pass batches through it; {REMEDY}")


def needed_bytes(config: Config, ranks: int) -> int:
    """Estimate the bytes of all batches that the workers of `ranks` processes load ahead.

    The workers of a training wait, with their batches, while those of an evaluation load theirs.
    """
    values = math.prod(config.model.input_shape)
    bytes_per_value = 4.0 if config.data.decoder == "pil" else 1.25  # uint8, and the noise of random erasing
    images = config.recipe.micro_batch * bytes_per_value + config.recipe.eval_batch * 4
    return int(ranks * config.data.workers * PREFETCH * images * values)


def check_shared_memory(config: Config, ranks: int) -> tuple[bool, str]:
    """Return whether the free shared memory suffices, and a line that says so."""
    free, needed = shutil.disk_usage(SHARED_MEMORY).free, needed_bytes(config, ranks)
    workers = ranks * config.data.workers
    return free >= needed, f"{_mib(free)} free, {workers} data workers need up to {_mib(needed)}"


def _size() -> int:
    return shutil.disk_usage(SHARED_MEMORY).total


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
