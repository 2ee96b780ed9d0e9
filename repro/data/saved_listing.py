"""The files that a run was trained on, kept in the user's cache folder, so that a later change can be named."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from repro.data.cache import user_cache
from repro.errors import first_few
from repro.files import replacing


class Files(NamedTuple):
    """The files of a split: their names relative to `folder`, their classes, and their lengths."""

    folder: Path
    names: Sequence[str]
    classes: Sequence[str]
    lengths: Sequence[int]  # bytes of images, frames of videos


def save_listing(fingerprint: str, *splits: Files) -> None:
    """Save the files of the data with this fingerprint, unless they are saved already."""
    path = _path(fingerprint)
    if path.is_file():
        return
    columns = [[list(each.names), list(each.classes), list(each.lengths)] for each in splits]
    # Without it a run is resumed with exactly the same files only, and a refusal names none.
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(columns).encode(), compresslevel=1))


def read_listing(fingerprint: str, splits: Sequence[Files]) -> list[Files] | None:
    """Return the saved files of a fingerprint, in the folders of `splits`. None if none are saved, or damaged."""
    try:
        columns = _COLUMNS.validate_python(json.loads(gzip.decompress(_path(fingerprint).read_bytes())))
        if any(len({len(names), len(classes), len(lengths)}) > 1 for names, classes, lengths in columns):
            return None
        return [Files(now.folder, *each) for now, each in zip(splits, columns, strict=True)]
    except (OSError, EOFError, zlib.error, ValueError):
        return None


def changed_files(fingerprint: str, *splits: Files) -> str:
    """Describe how `splits` differ from the saved files of a fingerprint; empty if none are saved, or all differ.

    Example: `missing: train/cat/7.jpg; changed: val/dog/3.jpg, val/dog/4.jpg`.
    """
    changes: dict[str, list[str]] = {"missing": [], "changed": [], "new": [], "same": []}
    for now, before in zip(splits, read_listing(fingerprint, splits) or [], strict=False):
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
