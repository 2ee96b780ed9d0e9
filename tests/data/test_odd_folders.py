"""What operating systems, file servers and notebooks leave in folders is no data."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tarfile
from pathlib import Path

import pytest
from image_folders import MakeImages, folder_config

from repro.data.layouts import find_data, image_split
from repro.data.listing import list_images
from repro.data.pack import list_tars, pack
from repro.data.splits import load_splits
from repro.errors import UserError

# An AppleDouble file, which macOS writes next to each file on a foreign disk, and into zip files.
APPLE_DOUBLE = struct.pack(">IIH", 0x00051607, 0x00020000, 0) + b"Mac OS X        " + b"\0" * 200


def fingerprint(root: Path) -> str:
    config = folder_config(root)
    find_data(config.data)
    splits = load_splits(config.data, config.recipe, config.model)
    assert splits.num_classes == 2
    return splits.fingerprint


def listed(root: Path) -> list[str]:
    """The names of the training images, in their order."""
    return list(list_images(image_split(root / "train")).names)


def add_apple_double(split: Path) -> None:
    (split / "aster/._0.jpg").write_bytes(APPLE_DOUBLE)
    (split / "aster/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (split / "._aster").write_bytes(APPLE_DOUBLE)
    (split / "__MACOSX/aster").mkdir(parents=True)
    (split / "__MACOSX/aster/._0.jpg").write_bytes(APPLE_DOUBLE)


def add_notebook_checkpoints(split: Path) -> None:
    for folder in (split, split / "rose"):
        (folder / ".ipynb_checkpoints").mkdir()
        shutil.copy(split / "aster/a.jpg", folder / ".ipynb_checkpoints/0-checkpoint.jpg")


def add_synology_thumbnails(split: Path) -> None:
    for folder in (split, split / "rose"):
        (folder / "@eaDir/a.jpg").mkdir(parents=True)
        shutil.copy(split / "aster/a.jpg", folder / "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg")


def add_trash(split: Path) -> None:
    for name in (".Trash-1000/files", "lost+found", "$RECYCLE.BIN", "System Volume Information"):
        (split / name).mkdir(parents=True)
    shutil.copy(split / "aster/a.jpg", split / ".Trash-1000/files/a.jpg")


@pytest.mark.parametrize("add", [add_apple_double, add_notebook_checkpoints, add_synology_thumbnails, add_trash])
def test_hidden_and_system_entries_are_no_data(flowers: Path, tmp_path: Path, add: object) -> None:
    assert callable(add)
    before = fingerprint(flowers)
    shutil.copy(flowers / "val/aster/a.jpg", flowers / "train/aster/a.jpg")
    shutil.copytree(flowers, tmp_path / "odd")
    expected = fingerprint(flowers)
    assert expected != before
    for split in ("train", "val"):
        add(tmp_path / "odd" / split)
    assert fingerprint(tmp_path / "odd") == expected
    pack(tmp_path / "odd", tmp_path / "shards", 10, lambda line: None)
    assert fingerprint(tmp_path / "shards") == expected


def test_hidden_files_in_tar_files_are_no_data(tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "n01440764", ["a.jpg", "._a.jpg", "__MACOSX/._a.jpg"])
    with tarfile.open(tmp_path / "n01440764.tar", "w") as tar:
        for path in sorted((tmp_path / "n01440764").rglob("*.jpg")):
            tar.add(path, path.relative_to(tmp_path / "n01440764"))
    (tmp_path / "._n01440764.tar").write_bytes(APPLE_DOUBLE)
    assert list_tars(tmp_path) == {tmp_path / "n01440764.tar": {"a.jpg": "n01440764/a.jpg"}}


def test_a_folder_with_the_name_of_an_image_is_a_folder(flowers: Path) -> None:
    before = fingerprint(flowers)
    (flowers / "train/aster/album.jpg").mkdir()
    assert fingerprint(flowers) == before
    shutil.copy(flowers / "val/aster/a.jpg", flowers / "train/aster/album.jpg/1.jpg")
    assert listed(flowers)[0] == "aster/0.jpg"
    assert "aster/album.jpg/1.jpg" in listed(flowers)


def test_names_that_differ_in_case_only_are_two_images(flowers: Path) -> None:
    shutil.copy(flowers / "train/aster/1.jpg", flowers / "train/aster/0.JPG")
    assert listed(flowers)[:2] == ["aster/0.JPG", "aster/0.jpg"]


def test_a_class_folder_may_be_a_link(flowers: Path) -> None:
    before = fingerprint(flowers)
    (flowers / "train/aster").rename(flowers / "elsewhere")
    (flowers / "train/aster").symlink_to(flowers / "elsewhere")
    assert fingerprint(flowers) == before
    (flowers / "elsewhere/loop").symlink_to(flowers / "train/aster")  # a link to the folder that it is in
    assert fingerprint(flowers) == before


def test_a_name_that_is_no_utf8_is_read_and_not_packed(flowers: Path, tmp_path: Path) -> None:
    folder = flowers / "train/aster"
    os.rename(folder / "0.jpg", os.fsencode(folder) + b"/\xff\xe9.jpg")
    config = folder_config(flowers)
    splits = load_splits(config.data, config.recipe, config.model)
    assert len([splits.train[index] for index in range(len(splits.train))]) == len(listed(flowers))
    with pytest.raises(UserError, match=r"^'aster/.*\.jpg': a name in a zip file is UTF-8, this one is not; rename"):
        pack(flowers, tmp_path / "shards", 10, lambda line: None)
    assert not (tmp_path / "shards").exists()


def test_odd_names_are_names(flowers: Path, tmp_path: Path) -> None:
    for name in ("it's, a [x] (y) {z}", "ünï-日本", "a$HOME", "b=\tc", "line\nend"):
        for split in ("train", "val"):
            shutil.copytree(flowers / split / "rose", tmp_path / name / split / f"rose {name}")
            shutil.copytree(flowers / split / "aster", tmp_path / name / split / "aster")
        config = folder_config(flowers)
        data = config.data.model_copy(update={"root": str(tmp_path / name)})
        splits = load_splits(data, config.recipe, config.model)
        assert len([splits.train[index] for index in range(10)]) == 10
        pack(tmp_path / name, tmp_path / f"{name} shards", 4, lambda line: None)
        packed = load_splits(data.model_copy(update={"root": f"{tmp_path / name} shards"}), config.recipe, config.model)
        assert packed.fingerprint == splits.fingerprint


def test_a_subfolder_that_cannot_be_listed_is_one_line(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, its images would be missing from the training without a word."""
    (flowers / "train/aster/more").mkdir()
    scandir = os.scandir

    def failing(path: str | os.PathLike[str]) -> object:
        if os.path.basename(path) == "more":
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(UserError, match=r"aster/more: cannot be listed \(Stale file handle\); restore") as raised:
        listed(flowers)
    assert "\n" not in str(raised.value)
