"""`repro extract`: what figures need of finished models, taken from checkpoints once and left in the records.

A report imports no torch and opens no checkpoint; it reads `anatomy.json` where a record has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from repro.data.splits import load_splits
from repro.errors import UserError
from repro.models.anatomy import IMAGES, anatomy
from repro.runs.files import write_json
from repro.runs.record import Record
from repro.training.finished import finished_weights


def extract(records: Iterable[Record], *, again: bool = False, tell: Callable[[str], None] = print) -> int:
    """Write `anatomy.json` into the finished records that have none; returns how many were written.

    One whose weights or images cannot be read is told and left out.
    """
    written = 0
    for record in records:
        if record.result() is None or (record.anatomy() is not None and not again):
            continue
        try:
            config = record.config()
            test = load_splits(config.data, config.recipe, config.model).test
            images = torch.stack([test[index][0] for index in range(min(IMAGES, len(test)))])
            write_json(record.path / "anatomy.json", anatomy(config, finished_weights(record, "last"), images))
        except UserError as error:
            tell(f"  {record.path}: {error}")
            continue
        tell(f"  {record.path / 'anatomy.json'}")
        written += 1
    return written
