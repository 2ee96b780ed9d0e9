"""Whether the files of a data set are where they have to be: asked without reading one, and without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repro.composition import compose
from repro.config import Data
from repro.data.places import FINDERS, find_data
from repro.data.splits import MODULES
from repro.errors import UserError


def of(name: str, root: Path | None) -> Data:
    """The section alone: no model goes with it here."""
    return compose(["data=digits"]).data.model_copy(update={"name": name, "root": root and str(root)})


def test_every_data_set_has_a_place() -> None:
    assert set(FINDERS) == set(MODULES)


@pytest.mark.parametrize(
    ("name", "files", "below"),
    [
        ("imagefolder", ("train/a/1.jpg", "validation/a/2.jpg"), "."),
        (
            "imagenet",
            ("ILSVRC/Data/CLS-LOC/train/n01/1.JPEG", "ILSVRC/Data/CLS-LOC/val/1.JPEG", "LOC_val_solution.csv"),
            "ILSVRC/Data/CLS-LOC",
        ),
        ("imagefolder", ("train/index.npz", "train/0.tar", "val/a/2.jpg"), "."),
        ("imagenet", ("train/n01/1.JPEG", "train/n01.tar", "val/n01/1.JPEG"), "."),  # unpacked, and the tar files left
        ("kinetics400", ("train.csv", "val.csv"), "."),  # of absolute paths: no folder train/ anywhere near
        ("kinetics400", ("train/a/1.mp4", "validation.csv"), "."),
    ],
)
def test_what_people_have_is_found(tmp_path: Path, name: str, files: tuple[str, ...], below: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert find_data(of(name, tmp_path)) == tmp_path / below


@pytest.mark.parametrize("name", ["digits", "shapes", "shapes_video"])
def test_what_is_made_here_needs_no_folder(tmp_path: Path, name: str) -> None:
    assert find_data(of(name, tmp_path / "not written yet")) is None


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("imagefolder", (), "train: no such folder"),
        ("imagefolder", ("train/1.jpg",), "train: no class folders in it"),
        ("imagefolder", ("train/a/1.jpg",), "no folder val or validation"),
        ("imagefolder", ("train/0.tar", "val/a/1.jpg"), "train: tar files without index.npz; repro shards --index"),
        ("imagenet", ("train/n01/1.JPEG", "val/1.JPEG"), "need LOC_val_solution.csv"),
        ("kinetics400", ("train/a/1.mp4",), "no val or validation or validate, folder or csv"),
        ("kinetics400", ("train/1.mp4", "val.csv"), "neither train.csv nor class folders in train/"),
    ],
)
def test_what_loading_would_refuse_is_refused(tmp_path: Path, name: str, files: tuple[str, ...], message: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=re.escape(message)):
        find_data(of(name, tmp_path))


def test_a_root_that_is_not_set_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=null: data=imagenet needs the folder"):
        find_data(of("imagenet", None))
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_data(of("imagenet", tmp_path / "nowhere"))


def test_looking_takes_no_torch() -> None:
    code = "import repro.data.places, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
