"""Making shards of folders, and the index of shards."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repro.data.image_files import Listing, is_image
from repro.data.places import SHARDS, SHARDS_INDEX, has_shards
from repro.data.shards import CLASSES, HOW
from repro.errors import UserError
from repro.runs.files import write_text


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int


def write_shards(
    listing: Listing, folder: Path, images_per_shard: int, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Write the images of a listing, in its order, as tar files in `folder`, and their index.

    Raises `UserError` where there are tar files already, or an image cannot be read.
    """
    if has_shards(folder):
        raise UserError(f"{folder}: there are tar files in it; take them away, or give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CLASSES, "".join(f"{name}\n" for name in listing.classes))
    for number, start in enumerate(range(0, len(listing.names), images_per_shard)):
        path = folder / f"{folder.name}-{number:06}.tar"
        part = folder / f".{path.name}.tmp"  # half a tar file is never taken for a whole one
        rows = range(start, min(start + images_per_shard, len(listing.names)))
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
            for row in rows:
                _add(tar, listing, row)
        os.replace(part, path)
        tell(f"{path}: {len(rows)} images")
    write_index(folder)


def _add(tar: tarfile.TarFile, listing: Listing, row: int) -> None:
    name = listing.names[row]
    path = os.path.join(listing.folder, name)
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore the file or take it away") from None
    for member, content in ((name, data), (f"{_key(name)}.cls", str(listing.labels[row]).encode())):
        info = tarfile.TarInfo(member)  # no owner, no time: the same images make the same tar files
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def write_index(folder: Path) -> int:
    """Read the headers of the tar files in `folder` and write their index; returns the number of images.

    Images are the members whose ending is that of an image; the class of each is the number in the member `.cls` of
    the same key, which is the name up to the first dot of its last part. `classes.txt` names the classes, a line each.
    Raises `UserError` for tar files that are damaged, images without a class, or classes without a name or an image.
    """
    tars = sorted(path.name for path in folder.glob(SHARDS))
    if not tars:
        raise UserError(f"{folder}: no {SHARDS} in it")
    try:
        classes = (folder / CLASSES).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {CLASSES} in it; write one, the name of a class in each line, in the order of their numbers "
            "in the .cls members"
        ) from None
    members: list[_Member] = []
    labels: list[int] = []
    numbers: list[int] = []
    for number, name in enumerate(tars):
        found = _scan(folder / name, len(classes))
        members += [member for member, _ in found]
        labels += [label for _, label in found]
        numbers += [number] * len(found)
    empty = sorted(set(range(len(classes))) - set(labels))
    if empty:
        raise UserError(f"{folder}: no image of class {classes[empty[0]]} of {CLASSES}; correct {CLASSES}")
    part = folder / f".{SHARDS_INDEX}.tmp"
    with part.open("wb") as stream:
        np.savez(
            stream,
            tars=_bytes(tars),
            tar_sizes=np.array([(folder / name).stat().st_size for name in tars], np.int64),
            classes=_bytes(classes),
            names=_bytes([member.name for member in members]),
            labels=np.array(labels, np.int64),
            tar=np.array(numbers, np.int32),
            offsets=np.array([member.offset for member in members], np.int64),
            sizes=np.array([member.size for member in members], np.int64),
        )
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, folder / SHARDS_INDEX)
    return len(members)


def _scan(path: Path, num_classes: int) -> list[tuple[_Member, int]]:
    """The images of one tar file in its order, each with its class."""
    images: dict[str, _Member] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key = _key(member.name)
                if is_image(member.name):
                    if key in images:
                        raise UserError(f"{path}: {images[key].name} and {member.name} have one key, {key}; rename one")
                    images[key] = _Member(member.name, member.offset_data, member.size)
                elif member.name == f"{key}.cls":
                    stream = tar.extractfile(member)
                    assert stream is not None
                    labels[key] = int(stream.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged tar file ({error}); copy it again") from None
    except ValueError:
        raise UserError(f"{path}: {key}.cls is no number of a class; see {HOW} in docs/data.md") from None
    for key, image in images.items():
        if not 0 <= labels.get(key, -1) < num_classes:
            wrong = f"class {labels[key]}, {CLASSES} names {num_classes}" if key in labels else f"no {key}.cls"
            raise UserError(f"{path}: {image.name}: {wrong}; mend the tar file or {CLASSES}")
    return [(image, labels[key]) for key, image in images.items()]


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.split('.', 1)[0]}"


def _bytes(names: Sequence[str]) -> np.ndarray:
    return np.array([os.fsencode(name) for name in names])
