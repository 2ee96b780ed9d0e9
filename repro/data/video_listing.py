"""Which videos of a data set can be used: listing them, inspecting each once, saying which are left out and why."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from repro.data.cache import user_cache
from repro.data.image_files import STAT_THREADS
from repro.data.places import check_listed, has_folders
from repro.data.splits import first_few
from repro.data.video_decoding import Inspected, inspect
from repro.errors import UserError
from repro.runs.files import write_json

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
_OFFICIAL = {"label", "youtube_id", "time_start", "time_end"}


@dataclass(frozen=True)
class Videos:
    """Videos below `folder`: names relative to it (or absolute), what each is labelled, frames of each."""

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    frames: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()


def list_videos(root: Path, split: str) -> Videos:
    """The videos of `root/<split>/<class>/*.mp4`, or of `root/<split>.csv`.

    A csv file has lines of a path (relative to `root`, or absolute) and a class, split by a space or a comma, as
    SlowFast's and TimeSformer's; or the columns of Kinetics' own annotations, label,youtube_id,time_start,time_end, for
    files `<youtube_id>_<start>_<end>.mp4` (six digits each) in `root/<split>/` or its class folders.
    Raises `UserError` where there is neither, or nothing in it.
    """
    table = root / f"{split}.csv"
    if table.is_file():
        return _from_table(root, split, table)
    check_listed(root, split)
    folder = root / split
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    found = [
        (f"{name}/{file}", name)
        for name in classes
        for file in sorted(os.listdir(folder / name))
        if file.lower().endswith(ENDINGS)
    ]
    if not found:
        raise UserError(f"{folder}: no videos in its class folders; valid endings: {' '.join(ENDINGS)}")
    return Videos(folder, *_columns(found))


def usable(videos: Videos, least: int) -> Videos:
    """Those videos that can be decoded and have `least` frames; the others are in `skipped`, a line each.

    Each file is inspected once: what was found is kept in the user's cache folder, for files of the same size and time.
    Raises `UserError` where none is left.
    """
    seen = _inspected(videos)
    kept, skipped = [], []
    for name, label, found in zip(videos.names, videos.classes, seen, strict=True):
        fault = found.fault
        if not fault and found.frames < least:
            fault = f"too short: {found.frames} frame{'s' * (found.frames != 1)}, a clip has {least}"
        if fault:
            skipped.append(f"{os.path.join(videos.folder.name, name)}: {fault}")
        else:
            kept.append((name, label, found.frames))
    if not kept:
        raise UserError(f"{videos.folder}: none of {len(skipped)} videos can be used; {skipped[0]}")
    names, classes, frames = zip(*kept, strict=True)
    return Videos(videos.folder, names, classes, frames, tuple(skipped))


def video_fingerprint(*listings: Videos) -> str:
    """16 hex digits of the names, classes and lengths of the videos that are used."""
    found = blake2b(digest_size=8)
    for listing in listings:
        for entry in zip(listing.names, listing.classes, listing.frames, strict=True):
            found.update(("\0".join(map(str, entry)) + "\n").encode(errors="surrogateescape"))
        found.update(b"\n")
    return found.hexdigest()


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name for name, _ in pairs), tuple(label for _, label in pairs)


def _from_table(root: Path, split: str, table: Path) -> Videos:
    text = table.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    with table.open(newline="", encoding="utf-8") as stream:
        if set(first.replace('"', "").strip().split(",")) >= _OFFICIAL:
            pairs = list(_official(root, split, table, csv.DictReader(stream)))
        else:
            pairs = list(_plain(table, csv.reader(stream, delimiter="," if "," in first else " ")))
    if not pairs:
        raise UserError(f"{table}: no videos in it")
    return Videos(root, *_columns(pairs))


def _official(root: Path, split: str, table: Path, lines: csv.DictReader[str]) -> Iterator[tuple[str, str]]:
    in_folders = (root / split).is_dir() and has_folders(root / split)
    for line in lines:
        try:
            name = f"{line['youtube_id']}_{int(line['time_start']):06d}_{int(line['time_end']):06d}.mp4"
        except (TypeError, ValueError):
            raise UserError(f"{table} line {lines.line_num}: times are whole seconds; take Kinetics' file") from None
        yield f"{split}/{line['label'] + '/' if in_folders else ''}{name}", line["label"]


def _plain(table: Path, lines: Iterator[list[str]]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        if line and len(line) != 2:
            raise UserError(f"{table} line {number}: expected a path and a class, found {len(line)} columns")
        if line:
            yield line[0], line[1]


def _inspected(videos: Videos) -> list[Inspected]:
    place = blake2b(str(videos.folder).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    memory = user_cache() / f"videos-{place}.json"
    try:
        known: Mapping[str, list[int | str]] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}  # nothing, or nothing that can be read: each file is inspected
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        marks = list(pool.map(lambda name: _mark(videos.folder / name), videos.names))
        fresh = [known.get(name, [])[:2] != mark for name, mark in zip(videos.names, marks, strict=True)]
        asked = [name for name, is_new in zip(videos.names, fresh, strict=True) if is_new]
        answers = dict(zip(asked, pool.map(lambda name: inspect(videos.folder / name), asked), strict=True))
    found = [
        answers[name] if name in answers else Inspected(int(known[name][2]), str(known[name][3]))
        for name in videos.names
    ]
    if answers:
        lines = zip(videos.names, marks, found, strict=True)
        with contextlib.suppress(OSError):  # a folder that cannot be written: the next run inspects them again
            now = {name: [*mark, each.frames, each.fault] for name, mark, each in lines}
            write_json(memory, {**known, **now})  # two lists may be of one folder
    return found


def _mark(path: Path) -> list[int]:
    """What changes when a file does: size and time; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def check_same_classes(train: Videos, test: Videos) -> tuple[str, ...]:
    """All classes, in order. Raises `UserError` where the test videos have others than the training videos."""
    classes = tuple(sorted(set(train.classes), key=_class_order))
    extra = sorted(set(test.classes) - set(classes))
    if extra:
        raise UserError(f"{test.folder}: classes that no training video has: {first_few(extra)}")
    return classes


def _class_order(name: str) -> tuple[int, str]:
    """Numbers, which csv files have for classes, by their value; names by the alphabet."""
    return (int(name), "") if name.isdecimal() else (-1, name)
