"""`repro shards`: a folder of images as a few tar files, or the index of tar files that there are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from repro.errors import UserError


def add_shards(commands: Any) -> None:
    """Add `shards` to the command line's subparsers."""
    command = commands.add_parser("shards", help="pack folders of images into tar files: shards /data/imagenet OUT")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="holds train/ and val/, as data.root does")
    command.add_argument("out", type=Path, nargs="?", metavar="OUT", help="a new data.root")
    command.add_argument(
        "--images", type=int, default=10_000, metavar="N", help="in a tar file (default 10,000: about 1 GB of ImageNet)"
    )
    command.add_argument("--index", action="store_true", help="only index the tar files that are in FOLDER itself")
    command.set_defaults(function=_shards)


def _shards(options: argparse.Namespace) -> int:
    if options.images < 1:
        raise UserError(f"shards: --images {options.images}: at least 1")
    if options.index == (options.out is not None):
        raise UserError("shards: FOLDER OUT packs a folder, --index FOLDER indexes tar files; give one of the two")
    from repro.data.imagenet import listings
    from repro.data.shards_writing import write_index, write_shards

    if options.index:
        print(f"{options.folder}: {write_index(options.folder):,} images in its index")
        return 0
    train, val = listings(options.folder)
    for name, listing in (("train", train), ("val", val)):
        write_shards(listing, options.out / name, options.images, print)
    print(f"{options.out}: {len(train.names):,} training and {len(val.names):,} validation images; set data.root to it")
    return 0
