"""Checks the data in `data.root` before a run starts, by listing files. This module does not import torch."""

from __future__ import annotations

from repro.config import GENERATED, Config, Data
from repro.counting.geometry import Geometry, TimeSformer
from repro.data.data_sets import DATA_SETS, check_takes_clips, do_not_fit, settings_to_change
from repro.data.fingerprint import fingerprint, has_same_files, is_same_data
from repro.data.layouts import ARCHIVES, VIDEOS, class_folders, find_data, find_split
from repro.data.listing import count_files, list_images, list_videos
from repro.data.saved_listing import changed_files, resume_listings
from repro.errors import UserError


def check_tables(data: Data) -> None:
    """Read the csv files that list splits of `data`, if there are any. Raises `UserError` for a damaged one."""
    if data.name in (*ARCHIVES, *GENERATED):
        return
    list_split = list_videos if data.name in VIDEOS else list_images
    for split in (find_split(data, "train"), find_split(data, "test")):
        if split.table is not None:
            list_split(split)


def check_fits(config: Config) -> None:
    """Raise `UserError` if the data do not fit the config, as far as they are known or their folders and lists show."""
    data, model, recipe = config.data, config.model, config.recipe
    check_takes_clips(data, model)
    find_data(data)
    wrong = settings_to_change(data, recipe, model)
    known, place = DATA_SETS[data.name], f"data={data.name}"
    if known.images is not None:
        images = known.images[0]
    else:
        train, test = find_split(data, "train"), find_split(data, "test")
        place = str(train.folder)
        class_names = class_folders(train.folder) if train.table is None else list_videos(train).class_names()
        if len(class_names) not in (0, model.num_classes):  # 0 for shards, which are not read here
            wrong.append(f"model.num_classes={len(class_names)}")
        images = count_files(train, max(recipe.global_batch, data.limit_train or 0))
        if not images:
            raise UserError(f"{place}: holds no {'images' if data.clip is None else 'videos'}")
        if data.limit_train is not None and images < data.limit_train:
            wrong.append("data.limit_train=null")
        if data.limit_test is not None and count_files(test, data.limit_test) < data.limit_test:
            wrong.append("data.limit_test=null")
    images = min(images, data.limit_train or images)
    if images < recipe.global_batch:
        fits = images - images % recipe.micro_batch
        wrong.append(f"recipe.global_batch={fits or images}")
    if wrong:
        raise do_not_fit(data, place, wrong)


def changes_since(data: Data, model: Geometry, trained_on: str) -> str | None:
    """Describe how the data differ from those with the fingerprint `trained_on`, as `changed_files` does.

    Returns None if they are the same, apart from a few files that have become unreadable. Raises `UserError` if they
    cannot be listed.
    """
    if data.name in ARCHIVES:  # one published file, whose MD5 is checked when it is read
        find_data(data)
        return None
    are_videos, splits = data.name in VIDEOS, [find_split(data, split) for split in ("train", "test")]
    if are_videos:
        from repro.data.video_inspection import usable_videos, video_fingerprint  # needs PyAV

        assert isinstance(model, TimeSformer)
        listings = [usable_videos(list_videos(split), model.frames) for split in splits]
        now = video_fingerprint(*listings)
    else:
        listings = [list_images(split) for split in splits]
        classes = sorted({name for each in listings for name in each.classes})  # train/ may lack some
        now = fingerprint(classes, *listings)
    if is_same_data(trained_on, now) or resume_listings(trained_on, *listings, are_videos=are_videos) is not None:
        return None
    if has_same_files(trained_on, now):
        return "files of the same names and sizes with other contents"
    return changed_files(trained_on, *listings)
