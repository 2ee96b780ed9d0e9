"""One rank of a run that two processes share.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python rank_of_a_run.py RECORD [WHAT WHO]

Executes an attempt. WHAT=images: the rank WHO finds none; WHAT=gpu: all others say that they have one. Exits with the
attempt's code.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from repro.errors import UserError
from repro.training import task


def no_images(*_: Any) -> Any:
    """What a node says that lacks the data."""
    raise UserError("no images on this node")


if __name__ == "__main__":
    what, who = sys.argv[2:] or ("nothing", "")
    if what == "images" and who == os.environ["RANK"]:
        task.load_splits = no_images
    if what == "gpu":
        torch.cuda.is_available = lambda: who != os.environ["RANK"]
        torch.cuda.device_count = lambda: 1
    sys.exit(task.execute(Path(sys.argv[1]), take_over_s=0.5))
