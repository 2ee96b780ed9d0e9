"""What is done with a finished run: its model, taken from its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import torch

from repro.errors import UserError
from repro.models.export import export
from repro.runs.record import Record
from repro.training import checkpoint


def finished_weights(record: Record, which: Literal["last", "best"]) -> dict[str, Any]:
    """The weights of a finished run after its last epoch, or of the evaluation that was best.

    Raises `UserError` where that checkpoint is gone or damaged: an earlier one would be another model.
    """
    device, best = torch.device("cpu"), record.checkpoint_dir / "best.pt"
    if which == "best":
        saved = checkpoint.load(best, device) if best.is_file() else None
    else:
        result = record.result()
        saved = None if result is None else checkpoint.load_after(record.checkpoint_dir, result["updates"], device)
    if saved is None:
        raise UserError(
            f"{record.checkpoint_dir}: no {which} checkpoint that is whole; remove the record to run it again"
        )
    weights: dict[str, Any] = saved["model"]
    return weights


def export_record(
    record: Record,
    which: Literal["last", "best"],
    folder: Path,
    batch: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
    device: str = "cpu",
    forms: Collection[str] = (),
) -> dict[str, Any]:
    """Write the model of a finished run into `folder`; returns its description. For the rest see `models.export`."""
    about = record.about()
    origin = {"table": about["table"], "row": about["row"], "signature": about["signature"], "weights": which}
    return export(record.config(), finished_weights(record, which), folder, origin, batch, tell, device, forms)
