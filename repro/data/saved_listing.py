"""The files that a run was trained on, kept in the user's cache folder: to resume without some, and name changes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from repro.data.cache import user_cache
from repro.data.decoding import why_unreadable
from repro.data.listing import Listing, tolerated
from repro.errors import first_few
from repro.files import replacing

Resumed = tuple[Listing, Sequence[int]]  # files that a run was trained on, and the positions of the unreadable ones


def save_listing(fingerprint: str, *splits: Listing) -> None:
    """Save the files of the data with this fingerprint, unless they are saved already."""
    path = _path(fingerprint)
    if path.is_file():
        return
    columns = [[list(each.names), list(each.classes), list(each.lengths)] for each in splits]
    # Without it a run is resumed with exactly the same files only, and a refusal names none.
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(columns).encode(), compresslevel=1))


def resume_listings(trained_on: str, *splits: Listing, are_videos: bool) -> tuple[Resumed, ...] | None:
    """Return the files with the fingerprint `trained_on`, on which a run was trained; `splits` list those of now.

    Files that have become unreadable since keep their positions. Return None if their listing is not saved, if more
    files are lost than `tolerated`, or if one has another class or, though it is readable, another length. Images that
    are new, or of which none is lost, are other data too. Of videos, all that are listed are readable, and new ones are
    ignored.
    """
    resumed = []
    for now, before in zip(splits, _read_listing(trained_on, splits) or [], strict=False):
        lost = _lost_files(now, before, are_videos=are_videos)
        if lost is None:
            return None
        rows = {name: row for row, name in enumerate(now.names)}
        shards = now.shards and now.shards.take(np.array([rows.get(name, 0) for name in before.names]))  # 0: never read
        prefixes = tuple(f"{os.path.join(now.folder.name, before.names[position])}: " for position in lost)
        skipped = tuple(line for line in now.skipped if not prefixes or not line.startswith(prefixes))
        resumed.append((replace(before, shards=shards, skipped=skipped), lost))
    return tuple(resumed) if resumed and (are_videos or any(lost for _, lost in resumed)) else None


def _lost_files(now: Listing, before: Listing, *, are_videos: bool) -> list[int] | None:
    """Return the positions of files that have become unreadable; None if `now` differs in more than these."""
    rows = {name: row for row, name in enumerate(now.names)}
    if not are_videos and not rows.keys() <= set(before.names):
        return None
    files, lost = now.files(), []
    for position, (name, label, length) in enumerate(zip(before.names, before.classes, before.lengths, strict=True)):
        row = rows.get(name)
        if row is not None and now.classes[row] != label:
            return None
        if row is not None and now.lengths[row] == length:
            continue
        lost.append(position)
        is_readable = row is not None and (are_videos or not why_unreadable(files, row))
        if is_readable or len(lost) > tolerated(len(before)):
            return None
    return lost


def _read_listing(fingerprint: str, splits: Sequence[Listing]) -> list[Listing] | None:
    """Return the saved files of a fingerprint, in the folders of `splits`. None if none are saved, or damaged."""
    try:
        columns = _COLUMNS.validate_python(json.loads(gzip.decompress(_path(fingerprint).read_bytes())))
        if any(len({len(names), len(classes), len(lengths)}) > 1 for names, classes, lengths in columns):
            return None
        return [
            replace(now, names=names, classes=classes, shards=None, recorded_lengths=lengths)
            for now, (names, classes, lengths) in zip(splits, columns, strict=True)
        ]
    except (OSError, EOFError, zlib.error, ValueError):
        return None


def changed_files(fingerprint: str, *splits: Listing) -> str:
    """Describe how `splits` differ from the saved files of a fingerprint; empty if none are saved, or all differ.

    Example: `missing: train/cat/7.jpg; changed: val/dog/3.jpg, val/dog/4.jpg`.
    """
    changes: dict[str, list[str]] = {"missing": [], "changed": [], "new": [], "same": []}
    for now, before in zip(splits, _read_listing(fingerprint, splits) or [], strict=False):
        lengths_now, lengths_before = (dict(zip(each.names, each.lengths, strict=True)) for each in (now, before))
        for name in sorted(lengths_now.keys() | lengths_before.keys()):
            change = _change(lengths_before.get(name), lengths_now.get(name))
            changes[change].append(f"{now.folder.name}/{name}")
    if not changes.pop("same"):
        return ""
    return "; ".join(f"{change}: {first_few(names)}" for change, names in changes.items() if names)


def _change(before: int | None, now: int | None) -> str:
    if before == now:
        return "same"
    if now is None:
        return "missing"
    return "new" if before is None else "changed"


def _path(fingerprint: str) -> Path:
    names_and_sizes = fingerprint.partition("-")[0]
    return user_cache() / f"files-of-{names_and_sizes}.json.gz"


# Not `validate_json`: it refuses names that are not UTF-8, which `json` writes as lone surrogates.
_COLUMNS = TypeAdapter(list[tuple[list[str], list[str], list[int]]])  # names, classes and lengths of each split
