"""Checks of a machine and its cluster before hours are spent on them: pass, warn or fail, and what to do."""

from __future__ import annotations

import importlib.metadata
import netrc
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from repro.config import Config, SlurmLauncher
from repro.launch.check import Check
from repro.launch.cluster_checks import cluster_checks

FREE_GIB_WARN, FREE_GIB_FAIL = 50.0, 5.0
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs", "afs")


def examine(config: Config, root: Path) -> Iterator[Check]:
    """All checks that apply to this config; a check that cannot be made fails with the reason."""
    checks: list[Callable[[], Check]] = [
        _python,
        _torch,
        _gpu,
        lambda: _folder(root),
        lambda: _locks(root),
        lambda: _file_system(root, isinstance(config.launcher, SlurmLauncher)),
        lambda: _disk(root),
        lambda: _data(config),
        lambda: _wandb(config),
    ]
    for check in checks:
        yield check()
    yield from cluster_checks(config, root)


def _python() -> Check:
    # An older one cannot install this project, let alone get here; what matters is which environment it is.
    return Check("python", "pass", f"{platform.python_version()} at {sys.executable}")


def _torch() -> Check:
    try:
        return Check("torch", "pass", importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return Check("torch", "fail", "not installed", "make setup")


def _gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("gpu", "warn", "no nvidia-smi", "scale local needs none; on a login node that is usual")
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    cards = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not cards:
        words = (answer.stderr or answer.stdout).strip().splitlines()
        return Check(
            "gpu", "fail", words[-1] if words else "nvidia-smi failed", "the driver does not answer: tell the admin"
        )
    seen = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if seen.stdout.strip() != "True":
        return Check(
            "gpu", "fail", f"{len(cards)} x {cards[0]}", "torch sees no GPU: its CUDA is newer than the driver"
        )
    return Check("gpu", "pass", f"{len(cards)} x {cards[0]}")


def _folder(root: Path) -> Check:
    probe = root / f".probe-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return Check("runs folder", "fail", f"{root}: {error.strerror}", "take a folder that you may write to: --runs")
    return Check("runs folder", "pass", str(root))


def _locks(root: Path) -> Check:
    """Two attempts of one run are kept apart by a lock; some mounts have none."""
    if not root.is_dir():
        return Check("file locks", "fail", f"{root} is not there", "see runs folder")
    path = root / f".probe-{os.getpid()}.lock"
    try:
        with FileLock(path):
            held = FileLock(path)
            try:
                held.acquire(timeout=0)
            except Timeout:
                return Check("file locks", "pass", "work")
            return Check(
                "file locks", "fail", "a held lock was given twice", "mount with locks, or take another --runs"
            )
    except (OSError, NotImplementedError) as error:
        return Check("file locks", "fail", str(error), "mount the file system with locks (NFS: without nolock)")
    finally:
        path.unlink(missing_ok=True)


def _file_system(root: Path, needs_shared: bool) -> Check:
    kind, point = "unknown", ""
    place = str(root.resolve())
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Check("shared file system", "warn", "unknown", "runs must be on storage that compute nodes share")
    for line in mounts:
        _, target, type_, *_ = line.split(" ")
        inside = place == target or place.startswith(target.rstrip("/") + "/")
        if inside and len(target) >= len(point):
            kind, point = type_, target
    if kind in NETWORK_FILE_SYSTEMS or not needs_shared:
        return Check("shared file system", "pass", f"{kind} at {point}")
    return Check(
        "shared file system", "warn", f"{kind} at {point}", "compute nodes must see this folder: is it shared?"
    )


def _disk(root: Path) -> Check:
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.0f} GiB free"
    if free < FREE_GIB_FAIL:
        return Check("disk", "fail", found, "checkpoints of one DeiT-Base run take about 4 GiB: make room")
    if free < FREE_GIB_WARN:
        return Check("disk", "warn", found, "a table at paper scale takes about 4 GiB a run")
    return Check("disk", "pass", found)


def _data(config: Config) -> Check:
    data = config.data
    if data.root is None:
        return Check("data", "pass", f"{data.name} ships with a dependency")
    folder = Path(data.root)
    missing = [name for name in ("train", "val") if not (folder / name).is_dir()]
    if missing and not (folder / "ILSVRC").is_dir():
        return Check(
            "data",
            "fail",
            f"{folder}: no {' and no '.join(missing)}",
            "data.root= the folder that holds train/ and val/",
        )
    return Check("data", "pass", str(folder))


def _wandb(config: Config) -> Check:
    mode = config.tracker.mode
    if mode in ("disabled", "offline"):
        return Check("W&B login", "pass", f"not needed: tracker.mode={mode}")
    if os.environ.get("WANDB_API_KEY"):
        return Check("W&B login", "pass", "a key in the environment")
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        known = netrc.netrc(file).hosts if file.is_file() else {}
    except (netrc.NetrcParseError, OSError) as error:
        return Check("W&B login", "warn", str(error), "mend that file, then: wandb login")
    if any("wandb" in host for host in known):
        return Check("W&B login", "pass", f"a key in {file.name}")
    advice = "runs are kept offline and lose nothing; for a live mirror: wandb login"
    return Check("W&B login", "fail" if mode == "online" else "warn", "none", advice)
