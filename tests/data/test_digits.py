from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.config import Config
from repro.config.compose import compose
from repro.data import digits
from repro.data.splits import Splits, load_splits
from repro.errors import UserError


def load(*overrides: str) -> Splits:
    config: Config = compose(overrides)
    return load_splits(config.data, config.recipe, config.model)


def test_the_split_is_fixed_and_stratified() -> None:
    splits = load()
    assert (len(splits.train), len(splits.test), splits.num_classes) == (1437, 360, 10)
    assert np.bincount(splits.train.labels).tolist() == [142, 146, 142, 146, 145, 145, 145, 143, 139, 144]
    assert np.bincount(splits.test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert splits.fingerprint == "8dd7fd9c1641cb91"
    assert load("seed=7").train.labels.equal(splits.train.labels)


def test_every_digit_is_in_one_split_once() -> None:
    (train, _), (test, _) = digits.raw_splits()
    ours = np.concatenate([train, test]).reshape(-1, 64)
    theirs = digits.load_digits().data
    assert np.array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs)


def test_images_are_normalised_by_the_training_split() -> None:
    (train, _), _ = digits.raw_splits()
    data = compose().data
    assert data.mean == (round(float((train / 16).mean()), 4),)
    assert data.std == (round(float((train / 16).std()), 4),)
    splits = load()
    images = torch.stack([splits.train[index][0] for index in range(len(splits.train))])
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


def test_an_item_is_a_float_image_and_an_int() -> None:
    splits = load()
    image, label = splits.train[3]
    assert (image.shape, image.dtype, type(label)) == ((1, 8, 8), torch.float32, int)
    assert not splits.train.is_random


def test_a_limit_takes_a_stratified_subset() -> None:
    splits = load("data.limit_train=256", "data.limit_test=20")
    assert np.bincount(splits.train.labels).tolist() == [25, 26, 25, 26, 26, 26, 26, 25, 25, 26]
    assert np.bincount(splits.test.labels).tolist() == [2] * 10
    assert splits.fingerprint == load().fingerprint


def test_changed_pixels_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), test = digits.raw_splits()
    train[0, 4, 4] ^= 1
    monkeypatch.setattr(digits, "raw_splits", lambda: ((train, labels), test))
    assert load().fingerprint != "8dd7fd9c1641cb91"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.local.image_size=16", "data=digits: its images do not fit the config; set model.image_size=8"),
        ("backbone.local.in_chans=3", "data=digits: its images do not fit the config; set model.in_chans=1"),
        ("backbone.local.num_classes=7", "data=digits: its images do not fit the config; set model.num_classes=10"),
        ("data.mean=[0.1,0.2]", "data=digits: its images do not fit the config; set data.mean=[0.5]"),
        ("recipe.color_jitter=0.4", "data=digits: its images do not fit the config; set recipe.color_jitter=0"),
        ("data.limit_test=361", "data=digits: its images do not fit the config; set data.limit_test=null"),
        ("data.images_per_epoch=1400", "data=digits: its images do not fit the config; set data.images_per_epoch=1437"),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(override)
    assert str(caught.value) == message
