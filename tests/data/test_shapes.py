from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from repro.config.compose import compose
from repro.data import shapes
from repro.data.data_sets import DATA_SETS
from repro.data.in_memory import ImagesInMemory
from repro.data.shapes_drawing import AREA, NAMES, draw, own_centres, scenes
from repro.data.splits import Splits, load_splits
from repro.errors import UserError

SHAPES = ("data=shapes", "model.image_size=24", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8")
FINGERPRINT = "caf4893c25f4dccd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept here")


@pytest.fixture(scope="module")
def parts(folder: Path) -> tuple[shapes.Part, shapes.Part]:
    return shapes.cached_splits(folder, 24)


def load(folder: Path, *overrides: str) -> Splits:
    config = compose([*SHAPES, f"data.root='{folder}'", *overrides])
    return load_splits(config.data, config.recipe, config.model)


def test_the_images_are_the_same_everywhere_and_for_every_seed(folder: Path) -> None:
    splits = load(folder)
    assert (len(splits.train), len(splits.test), splits.num_classes) == (4096, 1024, 8)
    assert splits.fingerprint == load(folder, "seed=7").fingerprint == FINGERPRINT


def test_there_are_as_many_of_each_class(folder: Path) -> None:
    splits = load(folder)
    assert np.bincount(splits.train.labels).tolist() == [512] * 8
    assert np.bincount(splits.test.labels).tolist() == [128] * 8


def test_an_image_does_not_depend_on_those_drawn_with_it() -> None:
    together, masks = draw(scenes((0,), range(600), 24), np.full(600, 3))
    alone, mask = draw(scenes((0,), [599], 24), np.array([3]))
    assert np.array_equal(together[599:], alone)
    assert np.array_equal(masks[599:], mask)
    assert len(np.unique(together.reshape(600, -1), axis=0)) == 600


def test_training_and_test_images_differ(parts: tuple[shapes.Part, shapes.Part]) -> None:
    (train, _, _), (test, _, _) = parts
    everything = np.concatenate([train, test]).reshape(len(train) + len(test), -1)
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_the_object_is_a_small_part_whatever_its_kind(parts: tuple[shapes.Part, shapes.Part]) -> None:
    (_, classes, masks), _ = parts
    share = masks.mean((1, 2))
    assert share.min() > 0.1
    assert share.max() < 0.2
    of_kind = [share[classes == kind].mean() for kind in range(len(NAMES))]
    assert max(of_kind) - min(of_kind) < 0.015
    assert AREA[0] < np.mean(of_kind) < AREA[1]


def test_another_kind_in_the_same_scene_changes_nothing_else() -> None:
    scene = scenes((0,), range(64), 24)
    drawn = [draw(scene, np.full(64, kind)) for kind in range(len(NAMES))]
    grown = np.any([masks for _, masks in drawn], axis=0)
    # An edge is soft: what an object covers by less than half is not in its mask.
    grown = np.any([np.roll(grown, move, (1, 2)) for move in np.ndindex(3, 3)], axis=0)
    grown = np.roll(grown, (-1, -1), (1, 2))
    for pixels, masks in drawn[1:]:
        assert np.array_equal(pixels[~grown], drawn[0][0][~grown])
        assert (masks != drawn[0][1]).any((1, 2)).all()


def test_the_background_says_nothing_of_the_class_and_the_object_does(parts: tuple[shapes.Part, shapes.Part]) -> None:
    def told_by(of_object: bool) -> float:
        some = [tuple(array[:2048] for array in part) for part in parts]
        shown = []
        for stream, (pixels, _, masks) in enumerate(some):
            scene = scenes((stream,), range(len(pixels)), 24)
            every = [draw(scene, np.full(len(pixels), kind))[1] for kind in range(len(NAMES))]
            # Blanked is where any kind would be: a hole of the object's own outline would tell its class.
            seen = masks if of_object else ~np.any(every, axis=0)
            shown.append((pixels / 255 * seen[..., None]).reshape(len(pixels), -1))
        (_, train, _), (_, test, _) = some
        return float(RidgeClassifier(alpha=100).fit(shown[0], train).score(shown[1], test))

    assert told_by(of_object=False) < 1 / 8 + 4 * (1 / 8 * 7 / 8 / 1024) ** 0.5
    assert told_by(of_object=True) > 0.6


def test_a_larger_image_shows_the_same_object() -> None:
    kinds = np.arange(64) % 8
    small, large = (draw(scenes((0,), range(64), side), kinds)[1] for side in (24, 48))
    halved = large.reshape(64, 24, 2, 24, 2).mean((2, 4)) >= 0.5
    assert (halved & small).sum() / (halved | small).sum() > 0.9


def test_another_centre_moves_the_object_and_nothing_else() -> None:
    kinds, scene = np.zeros(8, np.int64), scenes((0,), range(8), 24)
    _, still = draw(scene, kinds, 0.5)
    _, moved = draw(scene, kinds, 0.5, own_centres(scene, 0.5) + np.array([2 / 24, -1 / 24]))
    assert np.array_equal(np.roll(still, (-1, 2), (1, 2))[:, 2:-2, 2:-2], moved[:, 2:-2, 2:-2])
    assert still.mean() == pytest.approx(draw(scene, kinds)[1].mean() / 4, rel=0.1)


def test_masks_go_with_their_images(folder: Path) -> None:
    splits = load(folder, "data.limit_train=16", "data.limit_test=8")
    whole = load(folder)
    assert isinstance(splits.test, ImagesInMemory)
    assert isinstance(whole.test, ImagesInMemory)
    assert splits.test.masks is not None
    assert whole.test.masks is not None
    assert splits.test.masks.shape == (8, 24, 24)
    place = next(i for i in range(len(whole.test)) if whole.test[i][0].equal(splits.test[5][0]))
    assert splits.test.masks[5].equal(whole.test.masks[place])


def test_images_are_normalised_by_the_training_split(folder: Path) -> None:
    splits = load(folder)
    images = torch.stack([splits.train[index][0] for index in range(len(splits.train))])
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-3)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([1] * 3, abs=1e-3)


def test_images_are_drawn_once(
    folder: Path, parts: tuple[shapes.Part, shapes.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "raw_splits", lambda side: pytest.fail("drawn again"))
    for kept, drawn in zip(shapes.cached_splits(folder, 24), parts, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(kept, drawn, strict=True))


@pytest.mark.parametrize("damage", ["a byte", "the end", "all"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS, "shapes", replace(DATA_SETS["shapes"], images=(16, 8)))
    shapes.cached_splits(tmp_path, 24)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    broken = {"a byte": bytes([*whole[:-1], whole[-1] ^ 1]), "the end": whole[:-9], "all": b""}[damage]
    path.write_bytes(broken)
    (train, _, _), _ = shapes.cached_splits(tmp_path, 24)
    assert path.read_bytes() == whole
    assert np.array_equal(train, shapes.raw_splits(24)[0][0])


def test_a_read_only_folder_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS, "shapes", replace(DATA_SETS["shapes"], images=(16, 8)))
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match=r"shapes are drawn again for every run \(or set data.root\)"):
        shapes.cached_splits(tmp_path / "file" / "folder", 24)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.image_size=12", "data=shapes: its images do not fit the config; set model.image_size=16"),
        ("model.in_chans=1", "data=shapes: its images do not fit the config; set model.in_chans=3"),
        ("model.num_classes=10", "data=shapes: its images do not fit the config; set model.num_classes=8"),
        ("recipe.random_erasing=0.1", "data=shapes: its images do not fit the config; set recipe.random_erasing=0"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(folder, override)
    assert str(caught.value) == message
