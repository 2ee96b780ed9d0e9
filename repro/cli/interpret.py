"""Compute heat maps of finished models and compare them with true masks.

Examples:
  repro interpret table1 deit_small/dense
  repro interpret table1 --segmentation /data/gtsegs_ijcv.mat
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command, announced, at_least, folder
from repro.cli.selection import add_selection, selection
from repro.errors import count_of


def add_parser(commands: Any) -> None:
    command = add_command(commands, "interpret", __doc__, run)
    add_selection(command)
    command.add_argument("--segmentation", type=folder, metavar="FILE", help="ImageNet-Segmentation's gtsegs_ijcv.mat")
    command.add_argument("--images", type=at_least(1), metavar="N", help="use the first N images (default: all)")
    command.add_argument("--again", action="store_true", help="repeat for records that already have heat maps")


def run(options: argparse.Namespace) -> int:
    with announced("loading torch"):
        from repro.evaluation.interpretation.records import interpret_records

    chosen = selection(options)
    runs = chosen.plan(reads_data=True)
    written = interpret_records(
        (run.record for run in runs), segmentation=options.segmentation, limit=options.images, again=options.again
    )
    print(f"{written} of {count_of(len(runs), 'record')}; to draw them: {chosen.command('report')}")
    return 0
