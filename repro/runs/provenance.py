"""Where a result comes from: code, command, machine, versions, data. Written at the start of every attempt."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "torchvision", "timm", "pillow", "numpy", "hydra-core", "submitit", "wandb", "scikit-learn"),
    *("transformers", "av"),  # of an extra: null where it is not installed
)
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def collect(
    data_fingerprint: str, device: str, data_skipped: Sequence[str] = (), data_decoder: str | None = None
) -> dict[str, Any]:
    """Provenance of this process. No environment variable is recorded, so no secret can be.

    `data_skipped` names what was left out of the data because it could not be read; `data_decoder` what decodes the
    training images: what they are down to the last bit depends on it.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "dirty_diff_sha256": _dirty_diff(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "host": platform.node(),
        "os": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "gpu": _gpus(device),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "data_fingerprint": data_fingerprint,
        **({"data_decoder": data_decoder} if data_decoder else {}),
        **({"data_skipped": list(data_skipped)} if data_skipped else {}),
    }


def requirements() -> str:
    """Every installed package with its version, as pip lists them: `name==version`, a line each."""
    installed = {(one.metadata["Name"], one.version) for one in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(installed, key=lambda one: str(one[0]).lower()))


def commit() -> str | None:
    """The commit of this code; None where there is no repository."""
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str | None:
    """What git says; None where there is no git or no repository (a container with the code copied in)."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _dirty_diff() -> str | None:
    """Hash of what differs from the commit in code, config and tables, new files too; None where nothing does."""
    places = ("--", "repro", "conf", "paper_tables")
    diff = _git("diff", "HEAD", *places) or ""
    new = (_git("ls-files", "--others", "--exclude-standard", *places) or "").splitlines()
    contents = [f"{name}\n{hashlib.sha256((REPOSITORY / name).read_bytes()).hexdigest()}" for name in new]
    differing = "\n".join([diff, *contents]).strip()
    return hashlib.sha256(differing.encode()).hexdigest() if differing else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """What the CPU calls itself, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()  # macOS
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus(device: str) -> list[dict[str, Any]]:
    if not device.startswith("cuda"):
        return []
    import torch

    cards = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        cards.append({"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)})
    driver = _nvidia_driver()
    return [{**card, "driver": driver, "cuda": torch.version.cuda} for card in cards]


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    words = text.split("Module", 1)[-1].split()
    return words[0] if words else None
