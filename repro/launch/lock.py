"""The lock on a runs folder, which a launch holds while it decides what to start and registers it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from repro.errors import UserError
from repro.launch.manifest import LAUNCH_FOLDER
from repro.runs.permissions import user_name

LOCK_WAIT_S = 60
ROOT_OPTIONS = "--runs, or run.root= of repro train"


@contextmanager
def launch_lock(root: Path) -> Iterator[None]:
    """Hold the launch lock of a runs folder for the duration of the block.

    Raises `UserError` if another launch holds the lock for `LOCK_WAIT_S` seconds, or if the folder is not writable.
    """
    folder = root / LAUNCH_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=LOCK_WAIT_S)
    except Timeout:
        raise UserError(f"{root}: another launch has held the lock for {LOCK_WAIT_S} s; try again") from None
    except OSError as error:
        if isinstance(error, PermissionError) and root.is_dir():
            raise UserError(
                f"{root}: belongs to {user_name(root.stat().st_uid)} and is not shared; run chmod -R g+w on it and "
                f"chmod g+s on its folders, or set {ROOT_OPTIONS}"
            ) from None
        raise UserError(f"{root}: cannot write there ({error.strerror}); set {ROOT_OPTIONS}") from None
    try:
        yield
    finally:
        lock.release()
