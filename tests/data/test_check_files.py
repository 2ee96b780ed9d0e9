"""`repro doctor --data`: every file is decoded beforehand, and all bad ones are listed at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_folders import folder_config
from PIL import Image

from repro.cli.main import main
from repro.config import Config
from repro.data.check_files import check_files
from repro.data.pack import pack
from repro.launch.doctor import data_files_check


def checked(config: Config) -> tuple[int, list[str], list[tuple[int, int]]]:
    reports: list[tuple[int, int]] = []
    total, lines = check_files(config.data, config.model, lambda done, of: reports.append((done, of)))
    return total, lines, reports


@pytest.fixture
def damaged(flowers: Path) -> Path:
    """The flowers with four bad files, of both splits."""
    (flowers / "train/aster/2.jpg").write_bytes(b"")
    cut = flowers / "train/rose/0.JPEG"
    cut.write_bytes(cut.read_bytes()[:-200])
    (flowers / "train/rose/1.JPEG").write_text("<html>404</html>")
    (flowers / "val/rose/a.jpg").write_bytes(b"\xff\xd8\xff")
    return flowers


def test_whole_files_pass(flowers: Path) -> None:
    total, lines, reports = checked(folder_config(flowers))
    assert (total, lines) == (13, [])
    assert reports == [(done, 13) for done in range(1, 14)]


@pytest.mark.parametrize("packed", [False, True])
def test_all_bad_files_are_listed_at_once(damaged: Path, tmp_path: Path, packed: bool) -> None:
    root = damaged
    if packed:
        root = tmp_path / "shards"
        pack(damaged, root, 100, lambda line: None)
    total, lines, reports = checked(folder_config(root))
    names = ["train/aster/2.jpg", "train/rose/0.JPEG", "train/rose/1.JPEG", "val/rose/a.jpg"]
    assert total == 13
    assert len(reports) == 13
    for line, name in zip(lines, names, strict=True):
        split, _, file = name.partition("/")
        path = f"{root / split / split}-00000-of-00001.zip: {file}" if packed else str(root / name)
        assert line.startswith(f"{path}: cannot be decoded as an image (")


@pytest.mark.usefixtures("empty_cache")
def test_bad_videos_are_listed(kinetics: Path) -> None:
    from video_files import kinetics_config

    config = kinetics_config(kinetics)
    for again in (False, True):  # from the cache
        total, lines, reports = checked(config)
        assert total == 14
        assert reports == [(done, 14) for done in (*(() if again else range(1, 15)), 14)]
    assert [line.partition(":")[0] for line in lines] == [
        *("train/archery/cut.mp4", "train/archery/flash.mp4", "train/archery/text.mp4", "train/tap dancing/empty.mp4"),
    ]


def test_the_command_lists_them(damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((9, 9), np.float32)).save(damaged / "val/aster/a.jpg", "TIFF")
    words = ["doctor", "--data", "--json", "--runs", str(tmp_path / "runs"), "data=imagefolder"]
    with pytest.raises(SystemExit) as ended:
        main([*words, f"data.root='{damaged}'"])
    assert ended.value.code == 1
    output = capsys.readouterr()
    advice = "before the first run, restore or remove each of them, or convert it if its line says so"
    checks = {check["found"]: check for check in json.loads(output.out) if check["name"].startswith("data file")}
    assert len(checks) == 6
    assert checks["5 of 13 cannot be read"]["advice"] == advice
    assert sum(str(damaged) in found for found in checks) == 5
    scan = f"{damaged / 'val/aster/a.jpg'}: 32-bit floats have no known range; convert all such images to 8 bits per "
    assert f"{scan}channel, or to 16-bit grey" in checks


def test_the_files_of_data_that_were_not_found_are_said_not_to_be_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "--data", "--json", "--runs", str(tmp_path / "runs"), "data=imagefolder"]
    with pytest.raises(SystemExit):
        main([*words, f"data.root={tmp_path / 'nowhere'}"])
    checks = [check for check in json.loads(capsys.readouterr().out) if check["name"].startswith("data")]
    assert [(check["name"], check["verdict"]) for check in checks] == [("data", "fail"), ("data files", "fail")]
    assert checks[1]["found"] == "none decoded, because the check of the data failed"


def test_files_that_cannot_be_listed_are_one_check(flowers: Path) -> None:
    (flowers / "val/empty").mkdir()
    config = folder_config(flowers)
    (check,) = data_files_check("data", config.data, config.model)
    assert (check.name, check.verdict, check.advice) == (
        "data files",
        "fail",
        "correct what it names, and run this again",
    )
    assert check.found.startswith(f"{flowers / 'val'}: no files in class folder empty; valid endings: ")
