"""The checks of `repro doctor` on this machine and its cluster, each with a verdict and advice."""

from __future__ import annotations

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

import psutil
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from repro.config import Config, Data, SlurmLauncher
from repro.config.site import site_file
from repro.counting.geometry import Geometry
from repro.data.check_files import check_files
from repro.data.layouts import find_data
from repro.data.preflight import check_tables
from repro.data.shared_memory import REMEDY, SHARED_MEMORY, check_shared_memory
from repro.errors import UserError
from repro.launch.check import Check, by_check_name
from repro.launch.local_pool import parallelism
from repro.launch.slurm_checks import slurm_checks
from repro.runs.provenance import package_version
from repro.tracking.login import key_source, mirror_mode

LIMIT_S = 150.0  # the commands of a check have a timeout of 60 s each, which comes first
MOUNTED = "check that its file system is mounted and responds, or use another --runs"
# The advice if a check raises or hangs.
ADVICE = {
    "gpu": "the driver does not answer: ask the admin",
    "runs folder": MOUNTED,
    "file locks": MOUNTED,
    "shared file system": MOUNTED,
    "disk": MOUNTED,
    "data": "check that its file system is mounted and responds; set data.root= to the folder with train/ and val/",
    "W&B login": "correct or remove that file, then: wandb login",
    "slurm": "Slurm does not answer as expected: try again later, then ask the admin",
}
_WITHOUT_GPU = "scales smoke and local need no GPU; login nodes usually have none"
FREE_GIB_WARN, FREE_GIB_FAIL = 50.0, 5.0
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs", "afs")


def examine(config: Config, root: Path, data: Sequence[Data]) -> Iterator[Check]:
    """Run all checks for a config and yield their results; `data` are the data sets of its runs."""
    data_by_name = by_check_name(data)
    needs_shared = isinstance(config.launcher, SlurmLauncher)
    checks: dict[str, Callable[[], Iterable[Check]]] = {
        "python": lambda: [Check("python", "pass", f"{platform.python_version()} at {sys.executable}")],
        "site defaults": lambda: [Check("site defaults", "pass", str(site_file() or "none"))],
        "torch": lambda: [_torch()],
        "gpu": lambda: [_gpu()],
        "runs folder": lambda: [_runs_folder(root)],
        "file locks": lambda: [_file_locks(root)],
        "shared file system": lambda: [_file_system(root, needs_shared)],
        "disk": lambda: [_disk(root)],
        **({"shared memory": lambda: [shared_memory_check(config)]} if config.launcher.runs_here else {}),
        **{name: partial(_data, name, each) for name, each in data_by_name.items()},
        "W&B login": lambda: [_wandb_login(config)],
        "slurm": lambda: slurm_checks(config, root, data_by_name),
    }
    for name, check in checks.items():
        yield from run_check(name, check, LIMIT_S)


def run_check(name: str, check: Callable[[], Iterable[Check]], limit_s: float) -> Iterator[Check]:
    """Yield the results of a check as they arrive. A check that raises, or is silent for `limit_s` seconds, fails.

    The check runs in a thread, because access to a file system that is down can block for hours.
    """
    results: queue.Queue[Check | None] = queue.Queue()

    def run() -> None:
        try:
            for result in check():
                results.put(result)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            results.put(Check(name, "fail", text, _advice(name, "fix the cause, and run this again")))
        results.put(None)

    threading.Thread(target=run, name=f"doctor: {name}", daemon=True).start()
    while True:
        try:
            result = results.get(timeout=limit_s)
        except queue.Empty:
            advice = _advice(name, "the check does not return: ask your administrator")
            yield Check(name, "fail", f"no answer within {limit_s:g} s", advice)
            return
        if result is None:
            return
        yield result


def _advice(name: str, default: str) -> str:
    return ADVICE.get("data" if name.startswith("data ") else name, default)


def _torch() -> Check:
    version = package_version("torch")
    return Check("torch", "fail", "not installed", "make setup") if version is None else Check("torch", "pass", version)


def _gpu() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("gpu", "warn", "no nvidia-smi", _WITHOUT_GPU)
    answer = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    cards = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not cards:
        lines = (answer.stderr or answer.stdout).strip().splitlines()
        return Check("gpu", "fail", lines[-1] if lines else "nvidia-smi failed", ADVICE["gpu"])
    found = f"{len(cards)} x {cards[0]}"
    if _output(sys.executable, "-c", "import torch; print(torch.cuda.is_available())").stdout.strip() != "True":
        return Check("gpu", "fail", found, "torch sees no GPU: its CUDA version is newer than the driver")
    return Check("gpu", "pass", found)


def _output(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _runs_folder(root: Path) -> Check:
    probe = root / f".probe-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return Check("runs folder", "fail", f"{root}: {error.strerror}", "set --runs to a folder that you can write to")
    return Check("runs folder", "pass", str(root))


def _file_locks(root: Path) -> Check:
    """Check that file locks work, which keep two attempts of a run apart; some mounts do not support them."""
    if not root.is_dir():
        return Check("file locks", "fail", f"{root} does not exist", "see runs folder")
    path = root / f".probe-{os.getpid()}.lock"
    try:
        with FileLock(path):
            try:
                FileLock(path).acquire(timeout=0)
            except Timeout:
                return Check("file locks", "pass", "work")
            advice = "mount the file system with locks, or use another --runs"
            return Check("file locks", "fail", "a lock was granted twice", advice)
    except (OSError, NotImplementedError) as error:
        return Check("file locks", "fail", str(error), "mount the file system with locks (NFS: without nolock)")
    finally:
        path.unlink(missing_ok=True)


def _file_system(root: Path, needs_shared: bool) -> Check:
    place = root.resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    if not mounts:
        return Check("shared file system", "warn", "unknown", "runs must be on storage that compute nodes share")
    # The innermost mount; if several share a mount point, the last one hides the others.
    mount = max(reversed(mounts), key=lambda each: len(each.mountpoint))
    found = f"{mount.fstype} at {mount.mountpoint}"
    if mount.fstype in NETWORK_FILE_SYSTEMS or not needs_shared:
        return Check("shared file system", "pass", found)
    return Check("shared file system", "warn", found, "compute nodes must see this folder: is it shared?")


def _disk(root: Path) -> Check:
    place = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.0f} GiB free"
    if free < FREE_GIB_FAIL:
        return Check("disk", "fail", found, "checkpoints of one DeiT-Base run take about 4 GiB: free some space")
    if free < FREE_GIB_WARN:
        return Check("disk", "warn", found, "a table at paper scale takes about 4 GiB a run")
    return Check("disk", "pass", found)


def shared_memory_check(config: Config) -> Check:
    """Compare free shared memory with what the loader workers of all concurrent runs of a launch need."""
    name = "shared memory"
    if config.data.workers == 0:
        return Check(name, "pass", "not needed: data.workers=0")
    if not SHARED_MEMORY.is_dir():
        return Check(name, "warn", f"no {SHARED_MEMORY}", "data workers need it: set data.workers=0")
    parallel = parallelism(config.launcher.parallel, config.scale.cpu_threads)
    is_sufficient, found = check_shared_memory(config, parallel * config.launcher.ranks)
    return Check(name, "pass", found) if is_sufficient else Check(name, "fail", found, REMEDY)


def _data(name: str, data: Data) -> Iterator[Check]:
    try:
        folder = find_data(data)
    except UserError as error:
        yield Check(name, "fail", str(error), "set data.root= to the folder that holds train/ and val/")
        return
    try:
        check_tables(data)
    except UserError as error:
        yield Check(name, "fail", str(error), "correct or restore that file")
    else:
        yield Check(name, "pass", f"data={data.name} needs no folder" if folder is None else str(folder))


def data_files_check(name: str, data: Data, model: Geometry) -> Iterator[Check]:
    """Decode every file of `data`, with a progress bar on stderr; yield a result for all, and one for each bad file."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"decoding {name}", total=None)
        try:
            total, faults = check_files(data, model, lambda done, of: progress.update(task, completed=done, total=of))
        except UserError as error:
            yield Check(f"{name} files", "fail", str(error), "correct what it names, and run this again")
            return
    if not faults:
        yield Check(f"{name} files", "pass", f"{total:,} can be read" if total else "generated")
        return
    found = f"{len(faults):,} of {total:,} cannot be read"
    advice = "before the first run, restore or remove each of them, or convert it if its line says so"
    yield Check(f"{name} files", "fail", found, advice)
    yield from (Check(f"{name} file", "fail", fault) for fault in faults)


def _wandb_login(config: Config) -> Check:
    name = "W&B login"
    try:
        mode = mirror_mode(config)
    except UserError as error:
        return Check(name, "fail", str(error), "correct or unset WANDB_MODE")
    if mode in ("disabled", "offline"):
        variable = "tracker.mode" if config.tracker.mode == mode else "WANDB_MODE or WANDB_DISABLED"
        return Check(name, "pass", f"not needed: {variable} says {mode}")
    try:
        source = key_source()
    except UserError as error:
        return Check(name, "warn", str(error), "fix that file, then: wandb login")
    if source is not None:
        return Check(name, "pass", f"a key in {source}")
    advice = "runs are stored offline and lose nothing; for a live mirror: wandb login"
    return Check(name, "fail" if mode == "online" else "warn", "none", advice)
