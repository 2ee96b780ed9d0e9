"""Kinetics-400 and other sets of labelled videos, as people have them: class folders, or lists in csv files."""

from __future__ import annotations

from pathlib import Path

from repro.config import Data, Recipe
from repro.data.clips import Clips
from repro.data.in_memory import check_not_augmented
from repro.data.places import find_kinetics, video_validation
from repro.data.splits import Splits, check_channels
from repro.data.video_listing import Videos, check_same_classes, list_videos, usable, video_fingerprint
from repro.geometry import Geometry, TimeSformer


def load(data: Data, recipe: Recipe, model: Geometry) -> Splits:
    """Training clips, drawn by chance, and the validation videos as test clips: clip-1, and video-1 in `views`.

    `data.root` holds `train` and `val` (or `validation`): see `video_listing.list_videos` for how. Videos that cannot
    be decoded, or have fewer frames than a clip, are left out and named in `skipped`. Raises `UserError` for anything
    else that is not such a data set, or a recipe that augments beyond the clip's own draw.
    """
    return splits_of(find_kinetics(data), data, recipe, model)


def splits_of(root: Path, data: Data, recipe: Recipe, model: Geometry, fingerprint: str | None = None) -> Splits:
    """The splits of the videos below `root`; `fingerprint` where something better is known than their listing."""
    assert isinstance(model, TimeSformer)
    check_channels(data, model, channels=3)
    check_not_augmented(data, recipe)
    train, test = (usable(list_videos(root, split), model.frames) for split in ("train", video_validation(root)))
    classes = {name: number for number, name in enumerate(check_same_classes(train, test))}

    def clips(videos: Videos) -> Clips:
        labels = [classes[name] for name in videos.classes]
        return Clips.make(videos.folder, videos.names, labels, videos.frames, data, model)

    tested = clips(test)
    return Splits(
        train=clips(train),
        test=tested.as_("clip1"),
        num_classes=len(classes),
        fingerprint=fingerprint or video_fingerprint(train, test),
        views={"video1": tested.as_("video1")},
        skipped=(*train.skipped, *test.skipped),
    )
