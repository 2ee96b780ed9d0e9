"""Kinetics-400 and other sets of labelled videos, as people have them: class folders, or lists in csv files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repro.config import Data, Recipe
from repro.data.clips import Clips
from repro.data.in_memory import check_not_augmented
from repro.data.places import find_kinetics, video_validation
from repro.data.splits import Splits, check_channels
from repro.data.video_listing import (
    Videos,
    as_begun,
    check_same_classes,
    keep_listing,
    list_videos,
    usable,
    video_fingerprint,
)
from repro.geometry import Geometry, TimeSformer


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """Training clips, drawn by chance, and the validation videos as test clips: clip-1, and video-1 in `views`.

    `data.root` holds `train` and `val` (or `validation`, `validate`): see `video_listing.list_videos` for how. Videos
    that cannot be decoded, or have fewer frames than a clip, are left out and named in `skipped`. A video that breaks
    later is replaced by another one of its class, see `clips.Clips`. Raises `UserError` for anything else that is not
    such a data set, or a recipe that augments beyond the clip's own draw.
    """
    return splits_of(find_kinetics(data), data, recipe, model)


def splits_of(root: Path, data: Data, recipe: Recipe, model: Geometry, fingerprint: str | None = None) -> Splits:
    """The splits of the videos below `root`; `fingerprint` where something better is known than their listing."""
    assert isinstance(model, TimeSformer)
    check_channels(data, model, channels=3)
    check_not_augmented(data, recipe)
    now = tuple(usable(list_videos(root, split), model.frames) for split in ("train", video_validation(root)))
    if fingerprint is not None:
        return _made_of(now, data, model, fingerprint)
    found = _made_of(now, data, model, video_fingerprint(*now))
    keep_listing(found.fingerprint, *now)

    def earlier(began_with: str) -> Splits | None:
        begun = as_begun(began_with, *now)
        return None if begun is None else _made_of(begun, data, model, began_with)

    return replace(found, as_begun=earlier)


def _made_of(videos: Sequence[Videos], data: Data, model: TimeSformer, fingerprint: str) -> Splits:
    train, test = videos
    classes = {name: number for number, name in enumerate(check_same_classes(train, test))}
    trained, tested = (Clips.make(some, [classes[name] for name in some.classes], data, model) for some in videos)
    return Splits(
        train=trained,
        test=tested.as_("clip1"),
        num_classes=len(classes),
        fingerprint=fingerprint,
        views={"video1": tested.as_("video1")},
        skipped=(*train.skipped, *test.skipped),
        lost=(trained.lost, tested.lost),
    )
