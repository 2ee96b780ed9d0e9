"""The model of a finished run, loaded from its checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch

from repro.errors import UserError
from repro.evaluation.weights.state_dict import check_finite
from repro.inference.export import export
from repro.inference.kernel_selection import KernelSearch
from repro.runs.record import Record
from repro.training import checkpoint
from repro.training.weights_file import read_weights


def finished_weights(record: Record, epoch: Literal["last", "best"]) -> dict[str, Any]:
    """Return the state dict of a finished run after its last epoch or its best evaluation, or the adopted weights.

    Raises `UserError` if that checkpoint is missing or damaged (an earlier one would be a different model), or if its
    weights are not finite.
    """
    if record.is_adopted:
        return read_weights(record.weights_file)
    device, best = torch.device("cpu"), record.checkpoint_dir / "best.pt"
    if epoch == "best":
        saved = checkpoint.load(best, device) if best.is_file() else None
    else:
        result = record.result()
        saved = None if result is None else checkpoint.load_after(record.checkpoint_dir, result["updates"], device)
    if saved is None:
        raise UserError(
            f"{record.checkpoint_dir}: the {epoch} checkpoint is missing or damaged; remove the record to run it again"
        )
    weights: dict[str, Any] = saved["model"]
    check_finite(weights, str(record.checkpoint_dir))
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
