"""One rank of a run that two processes share.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python rank_of_a_run.py RECORD [WHO_CANNOT_READ]

Executes an attempt; the rank WHO_CANNOT_READ finds no images. Exits with the attempt's code.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.training import task


def no_images(*_: Any) -> Any:
    """What a node says that lacks the data."""
    raise UserError("no images on this node")


if __name__ == "__main__":
    if sys.argv[2:] == [os.environ["RANK"]]:
        task.load_splits = no_images
    sys.exit(task.execute(Path(sys.argv[1]), take_over_s=0.5))
