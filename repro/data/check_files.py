"""Decodes every file of a data set, to find unreadable files before a run does. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from repro.config import GENERATED, Data
from repro.cores import cores
from repro.counting.geometry import Geometry, TimeSformer
from repro.data.decoding import why_unreadable
from repro.data.layouts import ARCHIVES, VIDEOS, find_split
from repro.data.listing import list_images, list_videos

_CHUNK = 4096  # images submitted to the threads at once; a million futures would need a gigabyte


def check_files(data: Data, model: Geometry, report: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Decode every file of both splits in parallel; return their number, and a line for each unreadable file.

    `report` is called with the number of files decoded so far and in total. Videos are inspected as a training inspects
    them, so a later training uses the cached results. Generated data have no files. Raises `UserError` if the files
    cannot be listed.
    """
    if data.name in GENERATED:
        return 0, []
    if data.name in ARCHIVES:
        from repro.data.cifar import read_archive  # needs torchvision

        return sum(len(read_archive(data, is_training=is_training)) for is_training in (True, False)), []
    splits = [find_split(data, split) for split in ("train", "test")]
    if data.name in VIDEOS:
        from repro.data.video_inspection import inspect_videos  # needs PyAV

        frames = model.frames if isinstance(model, TimeSformer) else 1
        listings = [list_videos(split) for split in splits]
        total, done, faults = sum(map(len, listings)), 0, []
        for videos in listings:
            done += len(videos)
            faults += inspect_videos(videos, frames, partial(_report_part, report, done, total))[1]
        report(total, total)
        return total, faults
    images = [list_images(split).files() for split in splits]
    total, done, faults = sum(len(files.names) for files in images), 0, []
    with ThreadPoolExecutor(cores()) as pool:
        for files in images:
            for start in range(0, len(files.names), _CHUNK):
                rows = range(start, min(start + _CHUNK, len(files.names)))
                for fault in pool.map(partial(why_unreadable, files), rows):
                    faults += [fault] if fault else []
                    done += 1
                    report(done, total)
    return total, faults


def _report_part(report: Callable[[int, int], None], end: int, total: int, done: int, count: int) -> None:
    """Report that `done` files of a part are inspected, which has `count` files and ends at file `end` of `total`."""
    report(end - count + done, total)
