"""Files as written by MATLAB 7.3: HDF5 with columns of references, arrays in column-major order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from random_input import answer, damaged, random_input

from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.interpretation.imagenet_segmentation import ImageNetSegmentation

h5py = pytest.importorskip("h5py")
CONFIG = compose(["scale=paper", "backbone=deit_small", "data.root=nowhere"])


def write(path: Path, images: list[np.ndarray[Any, Any]], masks: list[np.ndarray[Any, Any]]) -> None:
    """Write images (height, width, 3) and masks (height, width), uint8."""
    kind = h5py.special_dtype(ref=h5py.Reference)
    with h5py.File(path, "w", userblock_size=512) as file:
        columns = {name: file.create_dataset(f"/value/{name}", (len(images), 1), kind) for name in ("img", "gt")}
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            columns["img"][index, 0] = file.create_dataset(f"/#refs#/i{index}", data=image.T).ref
            inner = file.create_dataset(f"/#refs#/m{index}", data=mask.T)
            cell = file.create_dataset(f"/#refs#/c{index}", (1, 1), kind)
            cell[0, 0] = inner.ref
            columns["gt"][index, 0] = cell.ref
    with path.open("r+b") as stream:  # MATLAB's own header, in the user block of HDF5
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:50, :, 0] = 255  # red at the top
    image[:, 150:, 2] = 255  # blue on the right
    mask = np.zeros((100, 200), np.uint8)
    mask[:50, 150:] = 1
    path = tmp_path / "gtsegs_ijcv.mat"
    write(path, [image, np.full((40, 30, 3), 255, np.uint8)], [mask, np.ones((40, 30), np.uint8)])
    return path


def test_images_and_masks_are_aligned_and_not_transposed(file: Path) -> None:
    data = ImageNetSegmentation(file, CONFIG)
    assert len(data) == 2
    image, mask = data[0]
    assert (image.shape, image.dtype) == ((3, 224, 224), torch.float32)
    assert (mask.shape, mask.dtype) == ((224, 224), torch.bool)
    assert mask.float().mean() == pytest.approx(1 / 8)
    assert mask[:112, 168:].all()
    red, blue = (image[channel] > 0 for channel in (0, 2))
    assert (red & blue)[mask].float().mean() > 0.97  # all but the edge, due to bicubic interpolation
    assert (red & blue)[~mask].float().mean() < 0.02
    white, everything = data[1]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.data.mean, CONFIG.data.std))
    torch.testing.assert_close(white, ((1 - mean) / std).expand(3, 224, 224))
    assert everything.all()


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path / "odd.mat", [np.zeros((4, 5, 3), np.uint8)], [np.zeros((5, 4), np.uint8)])
    with pytest.raises(UserError, match=r"odd.mat: entry 1 has an image of \(4, 5, 3\) and a mask of \(5, 4\)"):
        ImageNetSegmentation(tmp_path / "odd.mat", CONFIG)[0]


def test_an_image_of_another_type_is_named(tmp_path: Path) -> None:
    write(tmp_path / "odd.mat", [np.zeros((4, 5, 3), np.int8)], [np.zeros((4, 5), np.uint8)])
    with pytest.raises(UserError, match=r"odd.mat: entry 1 has an image of int8 and a mask of uint8, not uint8"):
        ImageNetSegmentation(tmp_path / "odd.mat", CONFIG)[0]


def test_columns_of_another_shape_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "odd.mat", "w") as file:
        file["value/img"], file["value/gt"] = np.zeros((2, 1)), np.zeros((3, 1))
    with pytest.raises(UserError, match=r"odd.mat: /value/img has shape \(2, 1\) and /value/gt \(3, 1\)"):
        ImageNetSegmentation(tmp_path / "odd.mat", CONFIG)
    write(tmp_path / "empty.mat", [], [])
    with pytest.raises(UserError, match=r"empty.mat: /value/img has shape \(0, 1\) and /value/gt \(0, 1\)"):
        ImageNetSegmentation(tmp_path / "empty.mat", CONFIG)
    with h5py.File(tmp_path / "groups.mat", "w") as file:
        file.create_group("value/img")
        file.create_group("value/gt")
    with pytest.raises(UserError, match=r"groups.mat: cannot be read \('Group' object has no attribute 'shape'\)"):
        ImageNetSegmentation(tmp_path / "groups.mat", CONFIG)


def test_a_damaged_signature_of_a_group_is_named(tmp_path: Path) -> None:
    """The first node of a group's B-tree starts with `TREE`; h5py raises RuntimeError on another signature."""
    file = tmp_path / "small.mat"
    write(file, [np.zeros((4, 5, 3), np.uint8)], [np.ones((4, 5), np.uint8)])
    file.write_bytes(file.read_bytes().replace(b"TREE", b"TREF"))
    with pytest.raises(UserError, match=r"small.mat: cannot be read \(.*\); download the file again"):
        ImageNetSegmentation(file, CONFIG)


def test_a_damaged_file_is_read_or_named(tmp_path: Path) -> None:
    file = tmp_path / "small.mat"
    write(file, [np.zeros((4, 5, 3), np.uint8)], [np.ones((4, 5), np.uint8)])
    whole = file.read_bytes()

    @given(damaged(whole))
    @random_input
    def check(content: bytes) -> None:
        file.write_bytes(content)

        def read() -> object:
            data = ImageNetSegmentation(file, CONFIG)
            return [data[index] for index in range(min(len(data), 2))]

        answer(read)

    check()


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(512))
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["value/img"] = [1]
    for name, words in (
        ("none.mat", "no such file"),
        ("old.mat", "not an HDF5 file"),
        ("other.mat", "no /value/gt in it"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            ImageNetSegmentation(tmp_path / name, CONFIG)
        assert "\n" not in str(caught.value)
