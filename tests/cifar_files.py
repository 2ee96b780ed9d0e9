"""Archives in exactly CIFAR's format, with fewer images, and torchvision told that they are the published ones."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from repro.data.data_sets import DATA_SETS


def write_cifar(
    root: Path, name: str, patch: pytest.MonkeyPatch, train: int = 100, test: int = 20, pack: bool = True
) -> None:
    """Write the archive of `cifar10` or `cifar100` into `root`, packed or as the folder that it holds."""
    published = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    classes, draw = {"cifar10": 10, "cifar100": 100}[name], np.random.default_rng(0)
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    counts = {file: train // len(published.train_list) for file, _ in published.train_list}
    counts |= {file: test for file, _ in published.test_list}
    for file, count in counts.items():
        labels = [number % classes for number in range(count)]
        pixels = draw.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        names = [f"{number}.png" for number in range(count)]
        batch = {"data": pixels, key: labels, "batch_label": file, "filenames": names}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {published.meta["key"]: [f"class {number}" for number in range(classes)]}
    (folder / published.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))

    def listed(files: list[list[str]]) -> list[list[str]]:
        return [[file, md5(folder / file)] for file, _ in files]

    patch.setitem(DATA_SETS, name, replace(DATA_SETS[name], images=(train, test)))
    patch.setattr(published, "train_list", listed(published.train_list))
    patch.setattr(published, "test_list", listed(published.test_list))
    patch.setattr(published, "meta", {**published.meta, "md5": md5(folder / published.meta["filename"])})
    if pack:
        with tarfile.open(root / published.filename, "w:gz") as archive:
            archive.add(folder, published.base_folder)
        shutil.rmtree(folder)
        patch.setattr(published, "tgz_md5", md5(root / published.filename))


def md5(file: Path) -> str:
    """The digest that torchvision compares."""
    return hashlib.md5(file.read_bytes()).hexdigest()
