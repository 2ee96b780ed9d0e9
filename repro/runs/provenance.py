"""Collects the provenance of a result: code, command, machine, versions, data. Every attempt writes it at its start."""

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

from repro.locations import IS_INSTALLED

PACKAGES = (
    *("repro-sparse-vit", "torch", "torchvision", "timm", "pillow", "numpy", "hydra-core", "submitit"),
    *("wandb", "scikit-learn"),
    *("transformers", "av"),  # optional dependencies; null if not installed
)
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def collect(
    data_fingerprint: str,
    device: str,
    data_skipped: Sequence[str] = (),
    data_decoder: str | None = None,
    data_classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the provenance of this process. Environment variables are not recorded, since they may hold secrets.

    Args:
        data_fingerprint: Fingerprint of the data set.
        device: Device of the training, as torch names it.
        data_skipped: Files that were skipped because they cannot be read.
        data_decoder: Decoder of the training images, on which their exact pixel values depend.
        data_classes: Names of the classes, in the order of the labels.
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
        "versions": {name: package_version(name) for name in PACKAGES},
        "data_fingerprint": data_fingerprint,
        **({"data_decoder": data_decoder} if data_decoder else {}),
        **({"data_skipped": list(data_skipped)} if data_skipped else {}),
        **({"data_classes": list(data_classes)} if data_classes else {}),
    }


def requirements() -> str:
    """Return every installed package as `pip freeze` does, one line `name==version` each."""
    packages = {(str(package.metadata["Name"]), package.version) for package in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages, key=lambda item: item[0].lower()))


def commit() -> str | None:
    """Return the commit of this code; None outside of a git repository."""
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str | None:
    """Return the output of git; None without git or without a repository, for example in a container."""
    if IS_INSTALLED:  # a repository around site-packages would be that of another project
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _dirty_diff() -> str | None:
    """Return a hash of the uncommitted changes to code, config and tables, with new files; None without changes."""
    places = ("--", "repro", "conf", "paper_tables")
    diff = _git("diff", "HEAD", *places) or ""
    names = (_git("ls-files", "-z", "--others", "--exclude-standard", *places) or "").split("\0")
    files = [(name, REPOSITORY / name) for name in names if (REPOSITORY / name).is_file()]  # not a nested repository
    contents = [f"{name}\n{hashlib.sha256(file.read_bytes()).hexdigest()}" for name, file in files]
    changes = "\n".join([diff, *contents]).strip()
    return hashlib.sha256(changes.encode(errors="surrogateescape")).hexdigest() if changes else None


def package_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the model name of the CPU, or its architecture."""
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

    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    versions = {"driver": _nvidia_driver(), "cuda": torch.version.cuda}
    return [{"name": card.name, "memory_gib": round(card.total_memory / 2**30, 1), **versions} for card in cards]


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    words = text.split("Module", 1)[-1].split()
    return words[0] if words else None
