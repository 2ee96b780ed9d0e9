"""Checkpoints that survive being killed while they are written: fsync, rename, checksum, the last two kept."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch

from repro.runs.files import replacing, write_text

KEPT = 2


def save(folder: Path, update: int, state: dict[str, Any]) -> Path:
    """Write the state after `update` optimizer updates and drop all but the last two checkpoints."""
    path = folder / _name(update)
    _write(path, state)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
        _checksum_file(old).unlink(missing_ok=True)
    return path


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write the weights of the best evaluation so far."""
    _write(folder / "best.pt", state)


def load_latest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on `device`; None where there is none.

    A file without a matching checksum is one that a killed process left or a disk damaged, and so is one that cannot be
    read: it is passed over with a warning, and the one before it is taken.
    """
    for path in _newest_first(folder):
        if not _is_whole(path):
            warnings.warn(
                f"{path.name} is damaged; going back to the checkpoint before it", RuntimeWarning, stacklevel=2
            )
            continue
        return load(path, device)
    return None


def load_after(folder: Path, update: int, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint after that very update, on `device`; None where there is none that is whole."""
    path = folder / _name(update)
    return load(path, device) if _is_whole(path) else None


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """One checkpoint, tensors and plain values only."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    checksums = _checksum_file(path)
    with replacing(path) as temporary:
        _save(state, temporary)
        digest = sha256(temporary)
        # Before the rename, and beside the checksum of the file that it replaces: killed here or there, one fits.
        write_text(checksums, "".join(f"{each}\n" for each in [*_checksums(path), digest]))
    write_text(checksums, digest + "\n")


def _save(state: dict[str, Any], path: Path) -> None:
    """Raises `OSError` where the disk is full: torch's own words for that ("unexpected pos") tell nobody anything."""
    try:
        with path.open("wb") as stream:
            torch.save(state, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _name(update: int) -> str:
    return f"update-{update:09d}.pt"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("update-*.pt"), reverse=True)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        return sha256(path) in _checksums(path)
    except OSError:  # on a disk that cannot read it any more
        return False


def _checksums(path: Path) -> list[str]:
    """What is noted beside a checkpoint; nothing where that is gone, damaged or cannot be read."""
    try:
        return _checksum_file(path).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def sha256(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
