"""Whether `data.root` has the layout of its data set, without opening a file or importing torch."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from repro.config import Data
from repro.config.compose import compose
from repro.data.layouts import find_data
from repro.errors import UserError


def data_section(name: str, root: Path | None) -> Data:
    """A data section without a model that matches it."""
    return compose(["data=digits"]).data.model_copy(update={"name": name, "root": root and str(root)})


@pytest.mark.parametrize(
    ("name", "files", "below"),
    [
        ("imagefolder", ("train/a/1.jpg", "validation/a/2.jpg"), "."),
        (
            "imagenet",
            ("ILSVRC/Data/CLS-LOC/train/n01/1.JPEG", "ILSVRC/Data/CLS-LOC/val/1.JPEG", "LOC_val_solution.csv"),
            "ILSVRC/Data/CLS-LOC",
        ),
        ("imagefolder", ("train/0.zip", "val/a/2.jpg"), "."),
        ("imagenet", ("train/n01/1.JPEG", "train/n01.tar", "val/n01/1.JPEG"), "."),  # unpacked, and the tar files left
        ("kinetics400", ("train.csv", "val.csv"), "."),  # of absolute paths: no folder train/ anywhere near
        ("kinetics400", ("train/a/1.mp4", "validation.csv"), "."),
    ],
)
def test_known_layouts_are_found(tmp_path: Path, name: str, files: tuple[str, ...], below: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_data(data_section(name, tmp_path)) == tmp_path / below


@pytest.mark.parametrize("name", ["digits", "shapes", "shapes_video"])
def test_generated_data_needs_no_folder(tmp_path: Path, name: str) -> None:
    assert find_data(data_section(name, tmp_path / "not written yet")) is None


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("imagefolder", (), "train: no such folder"),
        ("imagefolder", ("train/1.jpg",), "train: no class folders in it"),
        ("imagefolder", ("train/a/1.jpg",), "no folder val or validation"),
        ("imagefolder", ("train/0.tar", "val/a/1.jpg"), "train: tar files are not read directly; repro shards"),
        ("imagenet", ("train/n01/1.JPEG", "val/1.JPEG"), "need LOC_val_solution.csv"),
        ("imagefolder", ("train/train/a/1.jpg", "val/a/2.jpg"), "its only folder, train, holds folders and no files"),
        ("kinetics400", ("train/k400/a/1.mp4", "val/a/2.mp4"), "its only folder, k400, holds folders and no files"),
        ("imagenet", ("ILSVRC2012_img_train.tar",), "train: no such folder; unpack ILSVRC2012_img_train.tar: mkdir "),
        ("imagenet", ("train/n01/1.JPEG", "ILSVRC2012_img_val.tar"), "in it; unpack ILSVRC2012_img_val.tar: mkdir "),
        ("kinetics400", ("train/a/1.mp4",), "no val or validation or validate, folder or csv"),
        ("kinetics400", ("train/1.mp4", "val.csv"), "neither train.csv nor class folders in train/"),
    ],
)
def test_unknown_layouts_are_refused(tmp_path: Path, name: str, files: tuple[str, ...], message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=re.escape(message)):
        find_data(data_section(name, tmp_path))


def test_the_advice_to_unpack_is_a_command_for_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "it's $HOME & more"
    root.mkdir()
    (tmp_path / "1.JPEG").touch()
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as tar:
        tar.add(tmp_path / "1.JPEG", "n01/1.JPEG")
    with pytest.raises(UserError) as caught:
        find_data(data_section("imagenet", root))
    command = str(caught.value).partition("unpack ILSVRC2012_img_train.tar: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert (root / "train/n01/1.JPEG").is_file()


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=null: data=imagenet needs the folder"):
        find_data(data_section("imagenet", None))
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_data(data_section("imagenet", tmp_path / "nowhere"))


def test_checking_a_layout_imports_no_torch() -> None:
    code = "import repro.data.layouts, repro.data.listing, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
