"""Finds the images on which a run was trained, if only a few of them can no longer be read. Does not import torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repro.data.decoding import why_unreadable
from repro.data.fingerprint import is_fingerprint_of
from repro.data.listing import Listing, tolerated
from repro.data.saved_listing import Files, read_listing

Earlier = tuple[Listing, list[int]]  # the images of an earlier listing, and the positions of those that are lost


def earlier_images(trained_on: str, train: Listing, test: Listing) -> tuple[Earlier, Earlier] | None:
    """Return the training and test images with the fingerprint `trained_on`; the arguments list those that exist now.

    Return None if their listing is not saved, if more of them are lost than `tolerated` or none is (then contents have
    changed), if images are new, or if one has another class or, though it is readable, another size.
    """
    saved = read_listing(trained_on, (train.saved(), test.saved()))
    if saved is None or not is_fingerprint_of(trained_on, sorted(set(saved[0].classes)), *saved):
        return None
    train_before, test_before = (_as_listed_before(*each) for each in zip((train, test), saved, strict=True))
    if train_before is None or test_before is None or not (train_before[1] or test_before[1]):
        return None
    return train_before, test_before


def _as_listed_before(now: Listing, before: Files) -> Earlier | None:
    """Return the images of an earlier listing, and the positions of those that have become unreadable since.

    Return None if too many have, if images are new, or if one has another class or, though readable, another size.
    """
    rows = {name: row for row, name in enumerate(now.names)}
    if not rows.keys() <= set(before.names):
        return None
    files, lost = now.files(), []
    entries = zip(before.names, before.classes, before.lengths, strict=True)
    for position, (name, label, size) in enumerate(entries):
        row = rows.get(name)
        if row is not None and now.classes[row] != label:
            return None
        if row is not None and now.sizes[row] == size:
            continue
        lost.append(position)
        if len(lost) > tolerated(len(before.names)) or (row is not None and not why_unreadable(files, row)):
            return None
    shards = now.shards and now.shards.take(np.array([rows.get(name, 0) for name in before.names]))  # 0: never read
    return replace(now, names=before.names, classes=before.classes, shards=shards), lost
