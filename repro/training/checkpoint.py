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
    path = folder / _name(update)
    _write(path, state)
    for old in _newest_first(folder)[KEEP_LAST:]:
        old.unlink(missing_ok=True)
        _checksum_file(old).unlink(missing_ok=True)
    return path


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write the weights of the best evaluation so far to best.pt."""
    _write(folder / "best.pt", state)


def save_weights(folder: Path, update: int, weights: dict[str, Any]) -> None:
    """Write the model's weights after `update` updates to a file that `save` does not delete."""
    _write(_weights_file(folder, update), {"update": update, "model": weights})


def load_weights(folder: Path, update: int, device: torch.device) -> dict[str, Any] | None:
    """Load the weights that `save_weights` wrote after `update` updates; return None if missing or damaged."""
    path = _weights_file(folder, update)
    return load(path, device)["model"] if _is_intact(path) else None


def load_latest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Load the newest intact checkpoint to `device`; return None if there is none.

    A file that is unreadable or does not match its checksum was damaged by a kill or by the disk. It is skipped with a
    warning, and the previous checkpoint is loaded.
    """
    for path in _newest_first(folder):
        if _is_intact(path):
            return load(path, device)
        warnings.warn(f"{path.name} is damaged; using the checkpoint before it", RuntimeWarning, stacklevel=2)
    return None


def load_after(folder: Path, update: int, device: torch.device) -> dict[str, Any] | None:
    """Load the checkpoint after exactly `update` updates to `device`; return None if it is missing or damaged."""
    path = folder / _name(update)
    return load(path, device) if _is_intact(path) else None


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint without verifying its checksum. It may contain only tensors and plain values."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


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


def _weights_file(folder: Path, update: int) -> Path:
    return folder / f"weights-{update:09d}.pt"


def _name(update: int) -> str:
    return f"update-{update:09d}.pt"


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
