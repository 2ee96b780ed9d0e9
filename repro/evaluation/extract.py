"""`repro extract`: store in each record the data of its finished model that figures show.

Reports neither import torch nor open checkpoints; they read `anatomy.json` from the records that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from repro.errors import UserError
from repro.evaluation.finished_model import finished_weights
from repro.evaluation.inspection import IMAGES, inspect_model
from repro.files import write_json
from repro.runs.record import Record
from repro.training.inputs import load_trained_splits


def extract(records: Iterable[Record], *, again: bool = False, log: Callable[[str], None] = print) -> int:
    """Write `anatomy.json` to finished records without it, or with `again`, to all; return the number of files written.

    Records whose weights or images cannot be read are logged and skipped.
    """
    written = 0
    for record in records:
        if record.result() is None or (record.anatomy() is not None and not again):
            continue
        try:
            config = record.config()
            test = load_trained_splits(record, config).test
            images = torch.stack([test[index][0] for index in range(min(IMAGES, len(test)))])
            write_json(record.path / "anatomy.json", inspect_model(config, finished_weights(record, "last"), images))
        except UserError as error:
            log(f"  {record.path}: {error}")
            continue
        log(f"  {record.path / 'anatomy.json'}")
        written += 1
    return written
