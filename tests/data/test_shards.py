"""Images in tar files: the very same data as the folders that they were made of."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import MakeImages, folder_config
from timm.data import ImageNetInfo
from torch import Tensor

from repro.cli import main
from repro.data.loader import TrainLoader
from repro.data.places import SHARDS_INDEX
from repro.data.shards_writing import write_index
from repro.data.splits import Splits, load_splits
from repro.errors import UserError

WNIDS = ImageNetInfo().label_names()


def load(root: Path, data: str = "imagefolder", decoder: str = "fast") -> Splits:
    config = folder_config(root, data=data, **{"data.decoder": decoder})
    return load_splits(config.data, config.recipe, config.model)


def repro(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.fixture
def packed(flowers: Path, tmp_path: Path) -> Path:
    """The flowers in shards of four."""
    out = tmp_path / "packed"
    assert repro("shards", flowers, out, "--images", 4) == 0
    return out


def batches(splits: Splits, workers: int, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = TrainLoader(splits.train, global_batch=4, micro_batch=2, seed=0, repeats=3, workers=workers)
    return list(loader.batches(2, first))


def error(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(load(root).train)  # type: ignore[call-overload]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("workers", "decoder"), [(0, "fast"), (2, "fast"), (0, "pil")])
def test_shards_are_the_folder_exactly(flowers: Path, packed: Path, workers: int, decoder: str) -> None:
    assert sorted(path.name for path in (packed / "train").iterdir()) == [
        *("classes.txt", SHARDS_INDEX),
        *(f"train-00000{number}.tar" for number in range(3)),
    ]
    files, shards = (load(root, decoder=decoder) for root in (flowers, packed))
    assert (files.in_shards, shards.in_shards) == (False, True)
    assert (files.decoder, shards.decoder) == (decoder, decoder)
    # The same fingerprint: a run that began with one goes on with the other.
    assert shards.fingerprint == files.fingerprint
    assert shards.train.labels.equal(files.train.labels)
    for one, other in zip(batches(files, 0, first=1), batches(shards, workers, first=1), strict=True):
        assert one[0].equal(other[0])
        assert one[1].equal(other[1])
    for index in range(3):
        assert files.test[index][0].equal(shards.test[index][0])
    assert shards.test.take(torch.tensor([2]))[0][0].equal(files.test[2][0])
    assert shards.train.take(torch.tensor([9, 0, 5])).labels.tolist() == [1, 0, 0]


def test_the_same_images_make_the_same_tar_files(flowers: Path, packed: Path, tmp_path: Path) -> None:
    assert repro("shards", flowers, tmp_path / "again", "--images", 4) == 0
    for path in packed.rglob("*.tar"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(packed)).read_bytes()


def test_kaggles_validation_folder_is_packed_with_its_labels(tmp_path: Path, make_images: MakeImages) -> None:
    root = tmp_path / "kaggle"
    inner = root / "ILSVRC/Data/CLS-LOC"
    make_images(inner / "train", [f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS[5:7] for i in range(2)])
    make_images(inner / "val", [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2)])
    lines = [f"ILSVRC2012_val_0000000{number},{wnid} 1 2 3 4\n" for number, wnid in ((1, WNIDS[6]), (2, WNIDS[5]))]
    (root / "LOC_val_solution.csv").write_text("".join(["ImageId,PredictionString\n", *lines]))
    assert repro("shards", root, tmp_path / "out") == 0
    files, shards = load(root, "imagenet"), load(tmp_path / "out", "imagenet")
    assert shards.test.labels.tolist() == [1, 0]
    assert shards.fingerprint == files.fingerprint


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_tar_files_of_others_are_indexed(flowers: Path, packed: Path) -> None:
    for path in (packed / "train").glob("*.tar"):
        path.unlink()
    pictures = [(flowers / f"train/{name}").read_bytes() for name in ("rose/1.JPEG", "aster/3.jpg")]
    # A name that tar keeps in a header of its own, other members, and a class before its image.
    long = "a/" + "b" * 150
    write_tar(packed / "train/x.tar", {"0007.cls": b"1\n", "0007.json": b"{}", "0007.jpg": pictures[0]})
    write_tar(packed / "train/y.tar", {f"{long}.jpeg": pictures[1], f"{long}.cls": b"0"})
    assert write_index(packed / "train") == 2
    splits, files = load(packed), load(flowers)
    assert splits.train.labels.tolist() == [1, 0]
    assert splits.fingerprint != files.fingerprint
    assert splits.train.files.read(0) == pictures[0]  # type: ignore[attr-defined]
    assert splits.train.files.read(1) == pictures[1]  # type: ignore[attr-defined]
    assert repro("shards", "--index", packed / "train") == 0


def test_damage_is_told_in_a_line(packed: Path) -> None:
    folder = packed / "train"
    tar, index = folder / "train-000001.tar", folder / SHARDS_INDEX
    whole = tar.read_bytes()
    mend = "copy the tar file again, or make its index anew (repro shards --index)"

    tar.write_bytes(whole[:-512])
    assert error(packed) == f"{tar}: {len(whole) - 512} bytes, its index says {len(whole)}; {mend}"
    tar.unlink()
    assert error(packed) == f"{tar}: cannot be read (No such file or directory); copy it again"
    # As long as before, with other bytes in the place of a header, or of an image.
    tar.write_bytes(b"\1" * len(whole))
    assert error(packed).startswith(f"{tar}: aster/4.jpg: no tar header where the index says (")
    tar.write_bytes(whole[:512] + b"\0" * 300 + whole[812:])
    assert error(packed).startswith(f"{tar}: aster/4.jpg: cannot be decoded as an image (UnidentifiedImageError)")
    tar.write_bytes(whole)
    assert len(list(load(packed).train)) == 10  # type: ignore[call-overload]

    stored = index.read_bytes()
    index.write_bytes(stored[: len(stored) // 2])
    assert error(packed).startswith(f"{index}: cannot be read (")
    index.unlink()
    assert error(packed) == f"{folder}: tar files without index.npz; repro shards --index {folder}"


def test_a_tar_file_that_gets_shorter_while_it_is_read_is_told(packed: Path) -> None:
    images = load(packed).train
    tar = packed / "train/train-000000.tar"
    with tar.open("r+b") as stream:
        stream.truncate(1024)
    with pytest.raises(UserError, match=r"train-000000\.tar: aster/0\.jpg: 512 of \d+ bytes are there"):
        images[0]


def test_what_cannot_be_indexed_is_told_in_a_line(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = packed / "train"
    tar = folder / "train-000002.tar"
    whole = tar.read_bytes()

    def said() -> str:
        assert repro("shards", "--index", folder) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line.strip()

    tar.write_bytes(whole[:700])
    assert said().startswith(f"repro: {tar}: damaged tar file (")
    tar.write_bytes(b"no tar file" * 100)
    assert said().startswith(f"repro: {tar}: damaged tar file (")
    write_tar(tar, {"a.jpg": b"1", "a.cls": b"rose"})
    assert said().startswith(f"repro: {tar}: a.cls is no number of a class")
    write_tar(tar, {"a.jpg": b"1"})
    assert said() == f"repro: {tar}: a.jpg: no a.cls; mend the tar file or classes.txt"
    write_tar(tar, {"a.jpg": b"1", "a.cls": b"2"})
    assert said() == f"repro: {tar}: a.jpg: class 2, classes.txt names 2; mend the tar file or classes.txt"
    write_tar(tar, {"a.b.jpg": b"1", "a.c.jpg": b"1", "a.cls": b"0"})
    assert said() == f"repro: {tar}: a.b.jpg and a.c.jpg have one key, a; rename one"
    tar.write_bytes(whole)
    (folder / "classes.txt").write_text("aster\nrose\ntulip\n")
    assert said() == f"repro: {folder}: no image of class tulip of classes.txt; correct classes.txt"
    (folder / "classes.txt").unlink()
    assert said().startswith(f"repro: {folder}: no classes.txt in it; write one")
    for path in folder.glob("*.tar"):
        path.unlink()
    assert said() == f"repro: {folder}: no *.tar in it"


def test_the_command_says_what_it_takes(flowers: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        ((flowers,), "FOLDER OUT packs a folder, --index FOLDER indexes tar files; give one of the two"),
        ((flowers, packed), f"{packed}/train: there are tar files in it; take them away, or give another folder"),
        ((flowers, packed, "--images", 0), "--images 0: at least 1"),
    ):
        assert repro("shards", *words) == 2
        assert expected in capsys.readouterr().err


def test_the_index_holds_no_objects(packed: Path) -> None:
    with np.load(packed / "train" / SHARDS_INDEX, allow_pickle=False) as stored:  # a pickle could run anything
        assert stored["labels"].tolist() == [0] * 6 + [1] * 4
