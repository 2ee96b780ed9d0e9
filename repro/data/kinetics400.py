"""Kinetics-400, and other labelled videos in class folders or CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry, TimeSformer
from repro.data.clips import Clips
from repro.data.layouts import find_split
from repro.data.listing import list_videos
from repro.data.saved_listing import save_listing
from repro.data.splits import Splits
from repro.data.video_inspection import Videos, saved_videos, usable_videos, video_fingerprint
from repro.errors import UserError, first_few


def load(data: Data, recipe: Recipe, model: Geometry, fingerprint: str | None = None) -> Splits:
    """Load random training clips, and the validation videos as test clips.

    Test clips are of the kind `clip1`; `views` has those of the kind `video1` (see `Clips`). Videos that cannot be
    decoded or have fewer frames than a clip are left out and named in `skipped`. A video that becomes unreadable later
    is replaced by another video of its class. `fingerprint` replaces the fingerprint of names and lengths if the
    content of the videos is known. Raises `UserError` for another layout (see `list_videos`).
    """
    assert isinstance(model, TimeSformer)
    train, test = (usable_videos(list_videos(find_split(data, split)), model.frames) for split in ("train", "test"))
    if fingerprint is not None:
        return _splits(train, test, data, model, fingerprint)
    splits = _splits(train, test, data, model, video_fingerprint(train, test))
    save_listing(splits.fingerprint, train.files(), test.files())

    def with_fingerprint(trained_on: str) -> Splits | None:
        saved = saved_videos(trained_on, train, test)
        return None if saved is None else _splits(saved[0], saved[1], data, model, trained_on)

    return replace(splits, with_fingerprint=with_fingerprint)


def _splits(train: Videos, test: Videos, data: Data, model: TimeSformer, fingerprint: str) -> Splits:
    classes = _class_names(train, test)
    train_clips, test_clips = (Clips.of(videos, classes, data, model) for videos in (train, test))
    return Splits(
        train=train_clips,
        test=test_clips.as_kind("clip1"),
        num_classes=len(classes),
        fingerprint=fingerprint,
        views={"video1": test_clips.as_kind("video1")},
        skipped=(*train.skipped, *test.skipped),
        unreadable=(train_clips.unreadable, test_clips.unreadable),
    )


def _class_names(train: Videos, test: Videos) -> Sequence[str]:
    """Return all classes in order. Raises `UserError` if the test videos have a class without a training video."""
    # CSV files may number the classes. Numbers are sorted by value, names alphabetically.
    classes = sorted(set(train.classes), key=lambda name: (int(name), "") if name.isdecimal() else (-1, name))
    if extra := sorted(set(test.classes) - set(classes)):
        raise UserError(f"{test.folder}: classes without a training video: {first_few(extra)}")
    return classes
