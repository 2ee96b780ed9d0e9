"""Assigns the GPUs of this machine to the runs that are executed on it."""

from __future__ import annotations

import os
import shutil
import subprocess

from repro.config import LocalLauncher
from repro.errors import UserError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def gpus_per_run(launcher: LocalLauncher, parallel: int) -> list[str]:
    """Return disjoint values of CUDA_VISIBLE_DEVICES for up to `parallel` concurrent runs.

    Raises `UserError` if there are too few GPUs, because a run that sees none would silently train on the CPU.
    """
    count = launcher.gpus_per_node
    if count == 0:
        return [""] * parallel
    gpus = visible_gpus()
    fit = len(gpus) // count
    if fit == 0:
        found = f"{VISIBLE_DEVICES}={','.join(gpus)}" if gpus else "none"
        raise UserError(f"launcher.gpus_per_node={count}: this machine has fewer GPUs ({found})")
    if launcher.parallel != "auto" and launcher.parallel > fit:
        raise UserError(
            f"launcher.parallel={launcher.parallel}: with launcher.gpus_per_node={count} these runs need "
            f"{launcher.parallel * count} GPUs, but this machine has {len(gpus)}; set launcher.parallel={fit}"
        )
    return [",".join(gpus[place * count : (place + 1) * count]) for place in range(min(parallel, fit))]


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES; all installed GPUs if that is not set."""
    inherited = os.environ.get(VISIBLE_DEVICES)
    if inherited is None:
        return [str(number) for number in range(_installed())]
    names = [name.strip() for name in inherited.split(",")]
    # CUDA ignores everything after the first invalid entry; -1 or an empty value is the usual way to hide all GPUs.
    end = next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:end]


def _installed() -> int:
    """Return the number of GPUs that nvidia-smi lists; 0 if it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return 0
    answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0
