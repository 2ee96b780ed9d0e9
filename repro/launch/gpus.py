"""Which GPUs of this machine each of the runs on it may use."""

from __future__ import annotations

import os
import shutil
import subprocess

from repro.config import LocalLauncher
from repro.errors import UserError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def gpus_per_run(launcher: LocalLauncher, parallel: int) -> list[str]:
    """A value of CUDA_VISIBLE_DEVICES for each of up to `parallel` runs at once; no GPU is in two of them.

    Raises `UserError` if there are too few: a run that sees no GPU would train on the CPU.
    """
    count = launcher.gpus_per_node
    if count == 0:
        return [""] * parallel
    gpus = visible_gpus()
    fit = len(gpus) // count
    if fit == 0:
        found = f"{VISIBLE_DEVICES}={','.join(gpus)}" if gpus else "there are none"
        raise UserError(f"launcher.gpus_per_node={count}: more than the GPUs of this machine ({found})")
    if launcher.parallel != "auto" and launcher.parallel > fit:
        raise UserError(
            f"launcher.parallel={launcher.parallel}: runs of launcher.gpus_per_node={count} need "
            f"{launcher.parallel * count} GPUs, this machine has {len(gpus)}; launcher.parallel={fit} fits"
        )
    return [",".join(gpus[place * count : (place + 1) * count]) for place in range(min(parallel, fit))]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; if it is not set, all installed ones."""
    inherited = os.environ.get(VISIBLE_DEVICES)
    if inherited is None:
        return [str(number) for number in range(_installed())]
    names = [name.strip() for name in inherited.split(",")]
    # CUDA ignores everything from the first invalid entry on; -1 and an empty one are the usual ways to hide all.
    end = next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:end]


def _installed() -> int:
    """The number of GPUs that nvidia-smi lists; 0 without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return 0
    answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0
