"""The model of a finished run, loaded from its checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from repro.errors import UserError
from repro.evaluation.weights.state_dict import check_finite
from repro.inference.export import export
from repro.inference.kernel_selection import KernelSearch
from repro.runs.record import Record
from repro.training import checkpoint
from repro.training.weights_file import read_weights


def finished_weights(record: Record, epoch: Literal["last", "best"]) -> dict[str, Any]:
    """Return the state dict of a finished run after its last epoch or its best evaluation, or the adopted weights.

    Raises `UserError` if they are missing or damaged (an earlier checkpoint would be a different model), or not finite.
    """
    if record.is_adopted:
        return _adopted_weights(record.weights_file)
    folder, updates = record.checkpoint_dir, (record.result() or {}).get("updates", 0)
    path = checkpoint.best_path(folder) if epoch == "best" else checkpoint.update_path(folder, updates)
    saved = checkpoint.load(path, torch.device("cpu"))
    if saved is None:
        raise UserError(f"{folder}: the {epoch} checkpoint is missing or damaged; remove the record to run it again")
    weights: dict[str, Any] = saved["model"]
    check_finite(weights, str(folder))
    return weights


def _adopted_weights(path: Path) -> dict[str, Any]:
    try:
        weights = read_weights(path)
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({error}); adopt the weights again") from None
    check_finite(weights, str(path))
    return weights


def export_record(
    record: Record,
    epoch: Literal["last", "best"],
    folder: Path,
    search: KernelSearch | None = None,
    formats: Collection[str] = (),
) -> dict[str, Any]:
    """Export the model of a finished run to `folder` and return its description. See `repro.inference.export`."""
    about = record.about()
    origin = {key: about[key] for key in ("table", "row", "signature")}
    origin["weights"] = "adopted" if record.is_adopted else epoch
    if classes := record.provenance().get("data_classes"):
        origin["classes"] = classes
    return export(record.config(), finished_weights(record, epoch), folder, origin, search, formats)
