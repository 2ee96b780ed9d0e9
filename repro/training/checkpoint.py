"""Checkpoints that survive a kill at any time: written to a temporary file, fsynced, checksummed and renamed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from repro.files import replacing, sha256, write_text

KEEP_LAST = 2


def save(folder: Path, update: int, state: dict[str, Any]) -> Path:
    """Write the state after `update` optimizer updates and delete all but the last two checkpoints."""
    path = update_path(folder, update)
    _write(path, state)
    for old in _newest_first(folder)[KEEP_LAST:]:
        old.unlink(missing_ok=True)
        _checksum_file(old).unlink(missing_ok=True)
    return path


def save_weights(path: Path, update: int, weights: dict[str, Any]) -> None:
    """Write a model's weights after `update` updates to a file that `save` does not delete."""
    _write(path, {"update": update, "model": weights})


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Load a file that `save` or `save_weights` wrote to `device`; return None if it is missing or damaged.

    A file that is unreadable or does not match its checksum was damaged by a kill or by the disk.
    """
    if not _is_intact(path):
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def load_latest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Load the newest intact checkpoint to `device`; return None if there is none. Warns about damaged ones."""
    for path in _newest_first(folder):
        state = load(path, device)
        if state is not None:
            return state
        warnings.warn(f"{path.name} is damaged; using the checkpoint before it", RuntimeWarning, stacklevel=2)
    return None


def update_path(folder: Path, update: int) -> Path:
    """Return the checkpoint after `update` updates."""
    return folder / f"update-{update:09d}.pt"


def weights_path(folder: Path, update: int) -> Path:
    """Return the file of the weights after `update` updates, which are kept for other runs."""
    return folder / f"weights-{update:09d}.pt"


def best_path(folder: Path) -> Path:
    """Return the file of the weights of the best evaluation so far."""
    return folder / "best.pt"


def _write(path: Path, state: dict[str, Any]) -> None:
    checksum_file = _checksum_file(path)
    with replacing(path) as temporary:
        _save(state, temporary)
        digest = sha256(temporary)
        # Written before the rename, in addition to the checksum of the file to be replaced: whenever the process is
        # killed, one of the two matches.
        write_text(checksum_file, "".join(f"{checksum}\n" for checksum in [*_checksums(path), digest]))
    write_text(checksum_file, digest + "\n")


def _save(state: dict[str, Any], path: Path) -> None:
    """Save a state. If the disk is full, raise `OSError` instead of torch's `RuntimeError("unexpected pos ...")`."""
    try:
        with path.open("wb") as stream:
            torch.save(state, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("update-*.pt"), reverse=True)


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_intact(path: Path) -> bool:
    try:
        return sha256(path) in _checksums(path)
    except OSError:  # the disk cannot read it
        return False


def _checksums(path: Path) -> list[str]:
    """Return the checksums stored for a checkpoint; none if their file is missing, damaged or unreadable."""
    try:
        return _checksum_file(path).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
