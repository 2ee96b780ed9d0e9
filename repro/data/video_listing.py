"""Which videos of a data set can be used: listing them, inspecting each once, saying which are left out and why."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

from repro.data.cache import user_cache
from repro.data.image_files import STAT_THREADS
from repro.data.places import check_listed, has_folders
from repro.data.splits import first_few
from repro.data.video_decoding import Inspected, inspect
from repro.errors import UserError
from repro.runs.files import write_text

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
KEPT_EVERY = 2048  # inspected videos: what is known of them outlives a job that is killed
TOLD_EVERY_S = 30.0
LOST_IN = 1000  # of so many videos of a run one may break while it trains; and one of fewer
_RULES = 2  # of `inspect`: what other rules have found is not asked for
_OFFICIAL = {"label", "youtube_id", "time_start", "time_end"}


@dataclass(frozen=True)
class Videos:
    """Videos below `folder`: names relative to it (or absolute), what each is labelled, frames of each.

    `lost` are those among them that cannot be read any more; `skipped` is what was left out, a line each.
    """

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    frames: tuple[int, ...] = ()
    skipped: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


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


def keep_listing(fingerprint: str, *listings: Videos) -> None:
    """Remember in the user's cache folder which videos have this fingerprint, for runs that begin with them."""
    place = _listing_file(fingerprint)
    if not place.is_file():
        with contextlib.suppress(OSError):  # a folder that cannot be written: runs go on with the same videos only
            found = [[listing.names, listing.classes, listing.frames] for listing in listings]
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps(found) + "\n")


def as_begun(fingerprint: str, *listings: Videos) -> tuple[Videos, ...] | None:
    """The videos of this fingerprint, with which a run has begun, in the place of those that are usable now.

    Those that have broken or gone since are `lost`; videos that have come are left alone. None where more than one in
    `LOST_IN` is lost, where one has become another, or where nobody here knows the fingerprint.
    """
    try:
        kept = json.loads(_listing_file(fingerprint).read_text(encoding="utf-8"))
        earlier = [Videos(now.folder, *map(tuple, each)) for now, each in zip(listings, kept, strict=True)]
    except (OSError, ValueError, TypeError):
        return None
    if video_fingerprint(*earlier) != fingerprint:
        return None
    found = []
    for now, before in zip(listings, earlier, strict=True):
        usable_now = {name: about for name, *about in zip(now.names, now.classes, now.frames, strict=True)}
        lines = zip(before.names, before.classes, before.frames, strict=True)
        if any(usable_now.get(name, about) != about for name, *about in lines):
            return None
        lost = tuple(name for name in before.names if name not in usable_now)
        if len(lost) > tolerated(len(before.names)):
            return None
        named = tuple(f"{os.path.join(now.folder.name, name)}: " for name in lost)
        skipped = tuple(line for line in now.skipped if not named or not line.startswith(named))
        found.append(replace(before, skipped=skipped, lost=lost))
    return tuple(found)


def tolerated(videos: int) -> int:
    """How many of a run's videos may break while it trains."""
    return max(1, videos // LOST_IN)


def _listing_file(fingerprint: str) -> Path:
    return user_cache() / f"videos-of-{fingerprint}.json"


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name for name, _ in pairs), tuple(label for _, label in pairs)


def _from_table(root: Path, split: str, table: Path) -> Videos:
    text = table.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    with table.open(newline="", encoding="utf-8") as stream:
        if set(first.replace('"', "").strip().split(",")) >= _OFFICIAL:
            pairs = list(_official(root, split, table, csv.DictReader(stream)))
        else:
            pairs = list(_plain(table, csv.reader(stream, delimiter="," if "," in first else " "), "," in first))
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


def _plain(table: Path, lines: Iterator[list[str]], by_comma: bool) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        if line and (len(line) < 2 or (by_comma and len(line) > 2)):
            columns = f"{len(line)} column{'s' * (len(line) != 1)}"
            raise UserError(f"{table} line {number}: expected a path and a class, found {columns}")
        if line:  # a path may have spaces in it
            yield " ".join(line[:-1]), line[-1]


def _inspected(videos: Videos) -> list[Inspected]:
    place = blake2b(str(videos.folder).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    memory = user_cache() / f"videos-{place}-{_RULES}.json"
    with _threads() as pool, _alone(memory):
        known = _remembered(memory)
        marks = list(pool.map(lambda name: _mark(videos.folder / name), videos.names))
        asked = [
            (name, mark)
            for name, mark in zip(videos.names, marks, strict=True)
            if known.get(name, [])[: len(mark)] != mark
        ]
        show = _progress(videos.folder, len(asked))
        for start in range(0, len(asked), KEPT_EVERY):
            some = asked[start : start + KEPT_EVERY]
            answers = pool.map(inspect, [videos.folder / name for name, _ in some])
            try:
                for done, ((name, mark), found) in enumerate(zip(some, answers, strict=True), start=start + 1):
                    known[name] = [*mark, found.frames, found.fault]
                    show(done)
            finally:  # stopped in the middle, too
                with contextlib.suppress(OSError):  # a folder that cannot be written: the next run inspects them again
                    write_text(memory, json.dumps(known) + "\n")
    return [Inspected(int(known[name][2]), str(known[name][3])) for name in videos.names]


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing more once the block is left, whatever is still waiting for them."""
    pool = ThreadPoolExecutor(STAT_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(folder: Path, count: int) -> Callable[[int], None]:
    """Says now and then how many of `count` files have been inspected, and how long the others will take."""
    began = told = time.monotonic()

    def show(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TOLD_EVERY_S:
            told = now
            left_min = (now - began) / done * (count - done) / 60
            words = f"{folder}: {done:,} of {count:,} videos inspected, about {left_min:,.0f} minutes left"
            print(f"{words}; what is known is kept where this is stopped", flush=True)

    return show


@contextlib.contextmanager
def _alone(memory: Path) -> Iterator[None]:
    """The ranks and runs of a machine wait for the first of them, and find what it has found."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(memory.with_suffix(".lock"))
        lock.acquire()
    except (OSError, NotImplementedError):  # or a file system without locks
        yield  # a folder that cannot be written: everybody inspects
        return
    try:
        yield
    finally:
        lock.release()


def _remembered(memory: Path) -> dict[str, list[int | str]]:
    try:
        known: dict[str, list[int | str]] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing, or nothing that can be read: each file is inspected
    return known


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
