"""The GPUs of this machine, shared among the runs that are at work on it at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from repro.config import LocalLauncher
from repro.errors import UserError

ALL = "CUDA_VISIBLE_DEVICES"


def visible(inherited: str | None, installed: int) -> list[int]:
    """The numbers of the GPUs that may be used: those of CUDA_VISIBLE_DEVICES, or, where that is None, all installed.

    Raises `UserError` for a list of names (`GPU-...`, `MIG-...`), which submitit cannot hand on.
    """
    if inherited is None:
        return list(range(installed))
    try:
        return [int(word) for word in inherited.split(",") if word.strip() and int(word) >= 0]
    except ValueError:
        raise UserError(f"{ALL}={inherited}: launcher=local takes numbers (0,1); or use launcher=inline") from None


def shares(launcher: LocalLauncher, parallel: int, numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """Which GPUs each of the runs at work at once has for itself: at most `parallel` shares, none of them overlapping.

    Raises `UserError` where `numbers`, the GPUs there are, do not suffice: a run that sees none trains on the CPU.
    """
    each = launcher.gpus_per_node
    if each == 0:
        return [()] * parallel
    fit = len(numbers) // each
    if fit == 0:
        found = f"those of {ALL} are {','.join(map(str, numbers))}" if numbers else "there are none"
        raise UserError(f"launcher.gpus_per_node={each}: not so many GPUs here ({found})")
    if launcher.parallel != "auto" and launcher.parallel > fit:
        raise UserError(
            f"launcher.parallel={launcher.parallel}: runs of launcher.gpus_per_node={each} need "
            f"{launcher.parallel * each} GPUs, and there are {len(numbers)}; launcher.parallel={fit} fits"
        )
    return [tuple(numbers[place * each : (place + 1) * each]) for place in range(min(parallel, fit))]


def shares_here(launcher: LocalLauncher, parallel: int) -> list[tuple[int, ...]]:
    """`shares` of the GPUs of this machine."""
    if launcher.gpus_per_node == 0:
        return shares(launcher, parallel, [])
    inherited = os.environ.get(ALL)
    return shares(launcher, parallel, visible(inherited, _installed() if inherited is None else 0))


def _installed() -> int:
    """As nvidia-smi counts them; 0 where it is not there, or cannot."""
    if shutil.which("nvidia-smi") is None:
        return 0
    answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0
