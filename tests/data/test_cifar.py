"""CIFAR's archives: packed, unpacked, missing, not the published ones; and what a training gets of them."""

from __future__ import annotations

import errno
import functools
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_files import write_cifar
from torchvision.datasets import CIFAR10

from repro.config import Config
from repro.config.compose import compose
from repro.data.check_files import check_files
from repro.data.cifar import ArrayImages, read_archive
from repro.data.preflight import changes_since, check_fits
from repro.data.splits import load_splits
from repro.errors import UserError
from repro.seeding import seeded


def config(root: Path, *overrides: str) -> Config:
    sizes = ["data.images_per_epoch=100", "recipe.global_batch=100", "recipe.micro_batch=100"]
    return compose(["scale=mini", f"data.root='{root}'", *sizes, *overrides])


@pytest.mark.parametrize(("name", "classes", "pack"), [("cifar10", 10, True), ("cifar100", 100, False)])
def test_the_published_splits(
    name: str, classes: int, pack: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, name, monkeypatch, pack=pack)
    found = config(tmp_path, f"data={name}", f"model.num_classes={classes}")
    check_fits(found)
    assert check_files(found.data, found.model, lambda done, total: None) == (120, [])
    splits = load_splits(found.data, found.recipe, found.model)
    assert (len(splits.train), len(splits.test), splits.num_classes) == (100, 20, classes)
    assert changes_since(found.data, found.model, splits.fingerprint) is None
    pixels = read_archive(found.data, is_training=False).data[3]
    mean, std = (np.array(values, dtype=np.float32) for values in (found.data.mean, found.data.std))
    image, label = splits.test[3]
    expected = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)
    assert label == 3


def test_training_images_are_padded_and_cropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other augmentation, an image is shifted by at most four pixels, maybe mirrored, and black beside it."""
    write_cifar(tmp_path, "cifar10", monkeypatch)
    plain = ["recipe.rand_augment=null", "recipe.color_jitter=0", "recipe.random_erasing=0"]
    found = config(tmp_path, "data.mean=[0,0,0]", "data.std=[1,1,1]", *plain)
    train = load_splits(found.data, found.recipe, found.model).train
    assert isinstance(train, ArrayImages)
    padded = np.pad(train.pixels[7], ((4, 4), (4, 4), (0, 0)))
    crops = {(top, left): padded[top : top + 32, left : left + 32] for top in range(9) for left in range(9)}
    found_crops = {(*place, step): crop[:, ::step] for place, crop in crops.items() for step in (1, -1)}
    shifts = set()
    for draw in range(40):
        with seeded("shift", draw):
            image = (train[7][0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        (match,) = [place for place, crop in found_crops.items() if np.array_equal(crop, image)]
        shifts.add(match)
    assert len(shifts) > 20
    assert {step for _, _, step in shifts} == {1, -1}


def test_what_is_not_the_published_archive_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = config(tmp_path)
    for check in (check_fits, lambda found: read_archive(found.data, is_training=True)):
        with pytest.raises(UserError, match=r"neither cifar-10-python.tar.gz nor cifar-10-batches-py/.*download=true"):
            check(missing)
    (tmp_path / CIFAR10.filename).write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"are not what is published .* \(the archive has another md5\)") as raised:
        read_archive(missing.data, is_training=True)
    assert "\n" not in str(raised.value)
    (tmp_path / CIFAR10.filename).unlink()
    write_cifar(tmp_path, "cifar10", monkeypatch, pack=False)
    changed = tmp_path / CIFAR10.base_folder / "test_batch"
    changed.write_bytes(changed.read_bytes() + b"x")
    with pytest.raises(UserError, match="are not what is published"):
        read_archive(missing.data, is_training=False)
    with pytest.raises(UserError, match=r"data=cifar10: its images do not fit the config; set model.num_classes=10$"):
        check_fits(config(tmp_path, "model.num_classes=100"))
    found = config(tmp_path, "model.image_size=64")
    with pytest.raises(UserError, match=r"data=cifar10: its images do not fit the config; set model.image_size=32$"):
        load_splits(found.data, found.recipe, found.model)


def test_download_fetches_a_missing_archive_and_is_no_part_of_the_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path / "server", "cifar10", monkeypatch)
    found = config(tmp_path / "here", "data.download=true")
    check_fits(found)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        assert len(read_archive(found.data, is_training=True)) == 100
        server.shutdown()
    assert found.signature == config(tmp_path / "here").signature
    assert "download" not in config(tmp_path).model_dump(mode="json")["data"]


def test_without_a_network_the_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        closed = server.server_port
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{closed}/{CIFAR10.filename}")
    found = config(tmp_path, "data.download=true")
    with pytest.raises(
        UserError, match=r"cifar-10-python.tar.gz: cannot be fetched \(.*; put it into data.root="
    ) as raised:
        read_archive(found.data, is_training=True)
    assert "\n" not in str(raised.value)


def test_runs_that_start_together_unpack_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, "cifar10", monkeypatch)
    data = config(tmp_path).data
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: len(read_archive(data, is_training=False)), range(8)))
    assert read == [20] * 8


def test_an_archive_in_a_read_only_folder_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, "cifar10", monkeypatch)

    def read_only(archive: tarfile.TarFile, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / CIFAR10.base_folder))

    monkeypatch.setattr(tarfile.TarFile, "extractall", read_only)
    with pytest.raises(
        UserError, match=r"cannot be read or unpacked there \(Read-only file system\); unpack it"
    ) as raised:
        read_archive(config(tmp_path).data, is_training=True)
    assert "\n" not in str(raised.value)
    assert "remove" not in str(raised.value)
