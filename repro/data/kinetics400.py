"""Kinetics-400, and other labelled videos in class folders or CSV files."""

from __future__ import annotations

from collections.abc import Sequence

from repro.config import Data, Recipe
from repro.counting.geometry import Geometry, TimeSformer
from repro.data.clips import Clips
from repro.data.layouts import find_split
from repro.data.listing import Listing, list_videos
from repro.data.saved_listing import resume_listings, save_listing
from repro.data.splits import Splits
from repro.data.video_inspection import usable_videos, video_fingerprint
from repro.errors import UserError, first_few


def load(
    data: Data, recipe: Recipe, model: Geometry, trained_on: str | None = None, fingerprint: str | None = None
) -> Splits:
    """Load random training clips, and the validation videos as test clips.

    Test clips are of the kind `clip1`; `views` has those of the kind `video1` (see `Clips`). Videos that cannot be
    decoded or have fewer frames than a clip are left out and named in `skipped`. A video that becomes unreadable later
    is replaced by another video of its class. `fingerprint` replaces the fingerprint of names and lengths if the
    content of the videos is known. Raises `UserError` for another layout (see `list_videos`).
    """
    assert isinstance(model, TimeSformer)
    train, test = (usable_videos(list_videos(find_split(data, split)), model.frames) for split in ("train", "test"))
    resumed = None
    if fingerprint is None:
        fingerprint = video_fingerprint(train, test)
        save_listing(fingerprint, train, test)
        if trained_on not in (None, fingerprint):
            resumed = resume_listings(str(trained_on), train, test, are_videos=True)
    (train, train_lost), (test, test_lost) = resumed or ((train, ()), (test, ()))
    classes = _class_names(train, test)
    train_clips = Clips.of(train, classes, data, model, train_lost)
    test_clips = Clips.of(test, classes, data, model, test_lost)
    return Splits(
        train=train_clips,
        test=test_clips.as_kind("clip1"),
        num_classes=len(classes),
        fingerprint=str(trained_on) if resumed else fingerprint,
        views={"video1": test_clips.as_kind("video1")},
        skipped=(*train.skipped, *test.skipped),
        unreadable=(train_clips.unreadable, test_clips.unreadable),
    )


def _class_names(train: Listing, test: Listing) -> Sequence[str]:
    """Return all classes in order. Raises `UserError` if the test videos have a class without a training video."""
    # CSV files may number the classes. Numbers are sorted by value, names alphabetically.
    classes = sorted(set(train.classes), key=lambda name: (int(name), "") if name.isdecimal() else (-1, name))
    if extra := sorted(set(test.classes) - set(classes)):
        raise UserError(f"{test.folder}: classes without a training video: {first_few(extra)}")
    return classes
