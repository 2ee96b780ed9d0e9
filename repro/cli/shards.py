"""Pack images into shards: a few large zip files with random access.

FOLDER is a data.root of images, or contains tar files in train/ and val/: WebDataset's, or one for each class.

Examples:
  repro shards /data/imagenet /data/imagenet-shards
"""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli.options import add_command, at_least, folder


def add_parser(commands: Any) -> None:
    command = add_command(commands, "shards", __doc__, run)
    command.add_argument("folder", type=folder, metavar="FOLDER", help="folder with train/ and val/")
    command.add_argument("out", type=folder, metavar="OUT", help="output folder, to be used as data.root")
    text = "images per shard (default 10,000: about 1 GB of ImageNet)"
    command.add_argument("--images", type=at_least(1), default=10_000, metavar="N", help=text)


def run(options: argparse.Namespace) -> int:
    from repro.data.pack import pack

    pack(options.folder, options.out, options.images, print)
    return 0
