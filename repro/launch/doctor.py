"""Checks of a machine and its cluster before hours are spent on them: pass, warn or fail, and what to do."""

from __future__ import annotations

import importlib.metadata
import netrc
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from repro.config import Config, Data, SlurmLauncher
from repro.data.places import find_data
from repro.errors import UserError
from repro.launch.check import Check
from repro.launch.cluster_checks import by_label, cluster_checks

LIMIT_S = 150.0  # longer than the commands that one check waits for
ADVICE = {
    "gpu": "the driver does not answer: tell the admin",
    "runs folder": "is its file system mounted and up? else take another --runs",
    "file locks": "is its file system mounted and up? else take another --runs",
    "shared file system": "is its file system mounted and up? else take another --runs",
    "disk": "is its file system mounted and up? else take another --runs",
    "data": "is its file system mounted and up? data.root= the folder that holds train/ and val/",
    "W&B login": "mend or remove that file, then: wandb login",
    "slurm": "Slurm does not answer as it should: try again later, then tell the admin",
}
FREE_GIB_WARN, FREE_GIB_FAIL = 50.0, 5.0
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs", "afs")


def examine(
    config: Config, root: Path, limit_s: float = LIMIT_S, data: Sequence[Data] | None = None
) -> Iterator[Check]:
    """All checks that apply to this config; one that raises, or takes longer than `limit_s`, fails with what to do.

    `data` are the data sets that runs will read, None: the config's.
    """
    every = by_label(data or [config.data])
    needs_shared = isinstance(config.launcher, SlurmLauncher)
    checks: dict[str, Callable[[], Iterable[Check]]] = {
        "python": lambda: [_python()],
        "torch": lambda: [_torch()],
        "gpu": lambda: [_gpu()],
        "runs folder": lambda: [_folder(root)],
        "file locks": lambda: [_locks(root)],
        "shared file system": lambda: [_file_system(root, needs_shared)],
        "disk": lambda: [_disk(root)],
        **{name: partial(_data, name, each) for name, each in every.items()},
        "W&B login": lambda: [_wandb(config)],
        "slurm": lambda: cluster_checks(config, root, every),
    }
    for name, check in checks.items():
        yield from guarded(name, check, limit_s)


def guarded(name: str, check: Callable[[], Iterable[Check]], limit_s: float) -> Iterator[Check]:
    """What a check finds, as it finds it. One that raises fails; one that is silent for `limit_s` fails, and is left.

    A thread of its own: a file system that has gone away hangs a process that only looks at it, for hours.
    """
    found: queue.Queue[Check | None] = queue.Queue()

    def make() -> None:
        try:
            for each in check():
                found.put(each)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            found.put(Check(name, "fail", text, _advice(name, "mend that, and run this again")))
        found.put(None)

    threading.Thread(target=make, name=f"doctor: {name}", daemon=True).start()
    while True:
        try:
            each = found.get(timeout=limit_s)
        except queue.Empty:
            advice = _advice(name, "something behind it hangs: tell the admin")
            yield Check(name, "fail", f"no answer within {limit_s:g} s", advice)
            return
        if each is None:
            return
        yield each


def _advice(name: str, otherwise: str) -> str:
    return ADVICE.get("data" if name.startswith("data ") else name, otherwise)


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
        timeout=60,
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


def _data(name: str, data: Data) -> Iterator[Check]:
    try:
        folder = find_data(data)
    except UserError as error:
        yield Check(name, "fail", str(error), "data.root= the folder that holds train/ and val/")
    else:
        yield Check(name, "pass", f"data={data.name} needs no folder" if folder is None else str(folder))


def _wandb(config: Config) -> Check:
    mode = config.tracker.mode
    if mode in ("disabled", "offline"):
        return Check("W&B login", "pass", f"not needed: tracker.mode={mode}")
    if os.environ.get("WANDB_API_KEY"):
        return Check("W&B login", "pass", "a key in the environment")
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        known = netrc.netrc(file).hosts if file.is_file() else {}
    except (netrc.NetrcParseError, OSError, UnicodeError) as error:  # the message may quote the file, and so the key
        where = f"line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else type(error).__name__
        return Check("W&B login", "warn", f"{file}: cannot be read ({where})", "mend that file, then: wandb login")
    if any("wandb" in host for host in known):
        return Check("W&B login", "pass", f"a key in {file.name}")
    advice = "runs are kept offline and lose nothing; for a live mirror: wandb login"
    return Check("W&B login", "fail" if mode == "online" else "warn", "none", advice)
