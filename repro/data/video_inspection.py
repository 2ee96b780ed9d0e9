"""Finds the usable videos of a data set. Each file is decoded once, and the result is cached."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from repro.data.cache import user_cache
from repro.data.listing import STAT_THREADS, Listing
from repro.data.video_decoding import Inspection, inspect
from repro.errors import UserError, count_of, first_few
from repro.files import write_text

SAVE_EVERY = 2048  # inspections after which the cache is written, so that a killed job loses few of them
REPORT_EVERY_S = 30.0
Report = Callable[[int, int], None]
_RULES = 2  # version of `inspect`; cached results of another version are not used


def usable_videos(listing: Listing, least_frames: int) -> Listing:
    """Return the videos with at least `least_frames` frames, which are their `lengths`; the others are `skipped`.

    Raises `UserError` if no video is usable, or none of some class.
    """
    usable, skipped = inspect_videos(listing, least_frames)
    if not usable:
        paths = (
            f"; paths in {listing.table.name} are absolute, or relative to {listing.folder}" if listing.table else ""
        )
        raise UserError(f"{listing.folder}: none of {count_of(len(skipped), 'video')} can be used; {skipped[0]}{paths}")
    names, classes, frames = zip(*usable, strict=True)
    if missing := sorted(set(listing.classes) - set(classes)):
        raise UserError(f"{listing.folder}: no usable video of class {first_few(missing)}; the first: {skipped[0]}")
    return replace(listing, names=names, classes=classes, recorded_lengths=frames, skipped=tuple(skipped))


def inspect_videos(
    listing: Listing, least_frames: int, report: Report | None = None
) -> tuple[list[tuple[str, str, int]], list[str]]:
    """Return name, class and number of frames of each usable video, and a line with name and reason for each other.

    A result is cached as long as size and modification time of the file stay the same. `report` is called with the
    number of files inspected so far, and of all files that are not in the cache. By default, it prints the progress
    every `REPORT_EVERY_S` seconds.
    """
    usable, skipped = [], []
    inspections = _inspected(listing, report or _progress(listing.folder))
    for name, label, inspection in zip(listing.names, listing.classes, inspections, strict=True):
        fault = inspection.fault
        if not fault and inspection.frames < least_frames:
            fault = f"too short: {count_of(inspection.frames, 'frame')}, a clip has {least_frames}"
        if fault:
            skipped.append(f"{os.path.join(listing.folder.name, name)}: {fault}")
        else:
            usable.append((name, label, inspection.frames))
    return usable, skipped


def video_fingerprint(*splits: Listing) -> str:
    """Return a digest of the names, classes and lengths of videos, 16 hex digits."""
    digest = blake2b(digest_size=8)
    for videos in splits:
        for entry in zip(videos.names, videos.classes, videos.lengths, strict=True):
            digest.update(("\0".join(map(str, entry)) + "\n").encode(errors="surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()


def _inspected(listing: Listing, report: Report) -> list[Inspection]:
    folder_digest = blake2b(str(listing.folder).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    cache = user_cache() / f"videos-{folder_digest}-{_RULES}.json"
    with _locked(cache), contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(STAT_THREADS)
        stack.callback(pool.shutdown, cancel_futures=True)  # after an exception, no pending task is started
        cached = _read_cache(cache)
        versions = list(pool.map(lambda name: _version(listing.folder / name), listing.names))
        pending = [
            (name, version)
            for name, version in zip(listing.names, versions, strict=True)
            if cached.get(name, [])[: len(version)] != version
        ]
        for start in range(0, len(pending), SAVE_EVERY):
            chunk = pending[start : start + SAVE_EVERY]
            inspections = pool.map(inspect, [listing.folder / name for name, _ in chunk])
            try:
                for done, ((name, version), found) in enumerate(zip(chunk, inspections, strict=True), start=start + 1):
                    cached[name] = [*version, found.frames, found.fault]
                    report(done, len(pending))
            finally:  # also after an interrupt
                with contextlib.suppress(OSError):  # without the cache, the next run inspects the videos again
                    write_text(cache, json.dumps(cached) + "\n")
    return [Inspection(int(cached[name][2]), str(cached[name][3])) for name in listing.names]


def _progress(folder: Path) -> Report:
    """Return a function that prints every `REPORT_EVERY_S` seconds how many files are inspected, and the time left."""
    started = reported = time.monotonic()

    def report(done: int, count: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_EVERY_S:
            reported = now
            left_min = (now - started) / done * (count - done) / 60
            progress = f"{folder}: {done:,} of {count_of(count, 'video')} inspected, about {left_min:,.0f} minutes left"
            print(f"{progress}; results so far are kept if this is interrupted", flush=True)

    return report


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let only one process inspect the videos, while others wait for its results."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache.with_suffix(".lock"))
        lock.acquire()
    except (OSError, NotImplementedError):  # a folder that is not writable, or a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _read_cache(cache: Path) -> dict[str, list[int | str]]:
    """Return the results by file name: size, modification time, number of frames, fault.

    The mapping is empty if the cache is missing or damaged.
    """
    try:
        return {name: list(result) for name, result in _RESULTS.validate_python(json.loads(cache.read_bytes())).items()}
    except (OSError, ValueError):
        return {}


# Not `validate_json`: it refuses names that are not UTF-8, which `json` writes as lone surrogates.
_RESULTS = TypeAdapter(dict[str, tuple[int, int, int, str]])


def _version(path: Path) -> list[int]:
    """Return size and modification time of a file, which change if the file changes; zeros if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]
