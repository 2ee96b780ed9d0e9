"""Packs images into shards, from folders or from tar files."""

from __future__ import annotations

import lzma
import posixpath
import shlex
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.data.layouts import (
    TARS,
    class_folders,
    image_split,
    imagenet_folder,
    is_data_path,
    is_image,
    validation_folder,
    visible_files,
)
from repro.data.listing import list_images
from repro.data.shards import check_unique
from repro.errors import UserError, count_of, is_disk_full

CLASSES = "classes.txt"  # the class names of WebDataset's tar files, one per line, in the order of their numbers

Images = Iterator[tuple[str, bytes]]  # the name of each image in the shards, `<class>/<file>`, and its bytes
TarListing = dict[Path, dict[str, str]]  # the names of images in the shards, by tar file and by member of it


@dataclass(frozen=True)
class _Split:
    """The names of a split's images in the shards, the images, and the CSV file of their classes, if there is one."""

    names: Sequence[str]
    images: Images
    table: Path | None = None


def pack(root: Path, out: Path, images_per_shard: int, report: Callable[[str], None]) -> None:
    """Pack the training and validation images below `root` into shards, `out/train` and `out/val`.

    `root` has a layout of `data=imagenet` or `data=imagefolder`, or tar files in `train/` and `val/`: those of
    WebDataset, or one for each class. `out` appears only once it is complete. `report` receives a line for each shard.
    Raises `UserError` if `out` is not empty, and for images that cannot be packed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already; remove it, or give another folder")
    root, out = imagenet_folder(root), out.absolute()
    splits = {"train": _read(root / "train"), "val": _read(validation_folder(root))}
    for split in splits.values():
        _check_utf8(split.names)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by an earlier call that was interrupted
    try:
        for name, split in splits.items():
            count = len(split.names)
            shards = -(-count // images_per_shard)
            for number in range(shards):
                size = min(images_per_shard, count - number * images_per_shard)
                _write_shard(partial / name / f"{name}-{number:05}-of-{shards:05}.zip", split.images, size)
                report(f"{name}: shard {number + 1} of {shards}, {count_of(size, 'image')}")
            if split.table is not None:
                shutil.copy(split.table, partial)
        partial.rename(out)
    except OSError as error:
        error.filename = error.filename or str(out)
        if is_disk_full(error):
            raise
        place = str(error.filename).replace(str(partial), str(out))
        raise UserError(f"{place}: cannot be written ({error.strerror}); give another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    train, val = (len(split.names) for split in splits.values())
    report(f"{out}: {train:,} training and {count_of(val, 'validation image')}; set data.root={out}")


def list_tars(folder: Path) -> TarListing:
    """List the images in the tar files of `folder`, compressed or not.

    In WebDataset's tar files, the class of an image is the number in the member `<key>.cls`, whose name is in
    `classes.txt`. Otherwise it is the folder of the image or, if there is none, the name of the tar file. Raises
    `UserError` for damaged tar files, images without a class, and several images with the same name.
    """
    tars = [folder / file for file in visible_files(folder) if file.endswith(TARS)]
    listing = {tar: _list_tar(tar) for tar in tars}
    check_unique(folder, ((name, tar.name) for tar, names in listing.items() for name in names.values()))
    return listing


def _read(folder: Path) -> _Split:
    """Return the images of a split, from tar files, folders or shards."""
    has_tars = folder.is_dir() and any(name.endswith(TARS) for name in visible_files(folder))
    if has_tars and not class_folders(folder):
        tars = list_tars(folder)
        return _Split([name for names in tars.values() for name in names.values()], _read_tars(tars))
    listing = list_images(image_split(folder, may_be_flat=True, otherwise=""))
    files = listing.files()
    return _Split(listing.names, ((name, files.read(row)) for row, name in enumerate(listing.names)), listing.table)


def _check_utf8(names: Sequence[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name!r}: a name in a zip file is UTF-8, this one is not; rename the file") from None


def _read_tars(listing: TarListing) -> Images:
    for path, names in listing.items():
        for member, data in _members(path, names.__contains__):
            if member in names:
                yield names[member], data


def _write_shard(path: Path, images: Images, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for _ in range(count):
            name, data = next(images)
            info = zipfile.ZipInfo(name)  # has no file time, so that the same images give identical shards
            info.external_attr = 0o644 << 16  # the file mode after unzipping
            archive.writestr(info, data)


def _list_tar(path: Path) -> dict[str, str]:
    keys: dict[str, str] = {}  # by image name: WebDataset's key, the name up to the first dot of its last part
    labels: dict[str, str] = {}
    tars: list[str] = []
    for name, data in _members(path, lambda name: name.endswith(".cls")):
        folder, slash, file = name.rpartition("/")
        key = f"{folder}{slash}{file.partition('.')[0]}"
        if is_image(name) and is_data_path(name):
            if name in keys:
                raise UserError(f"{path}: {name} is in it twice; unpack it, and pack the folder")
            keys[name] = key
        elif name.endswith(TARS):
            tars.append(name)
        elif name == f"{key}.cls":
            labels[key] = data.decode(errors="replace").strip()
    if tars and not keys:  # ILSVRC2012_img_train.tar
        file, target = shlex.quote(str(path)), shlex.quote(str(path.parent))
        raise UserError(f"{path}: tar files in it; unpack and remove it: tar -xf {file} -C {target} && rm {file}")
    if not keys:
        raise UserError(f"{path}: no images in it")
    if labels:
        return _list_webdataset(path, keys, labels)
    stem = path.name.partition(".")[0]
    return {name: name if "/" in name else f"{stem}/{name}" for name in keys}


def _list_webdataset(path: Path, keys: dict[str, str], labels: dict[str, str]) -> dict[str, str]:
    try:
        classes = (path.parent / CLASSES).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: no {CLASSES} in it; write one with the name of a class in each line, in the order of "
            "the numbers in the .cls members"
        ) from None
    names: dict[str, str] = {}
    by_key: dict[str, str] = {}
    for name, key in keys.items():
        if key in by_key:
            raise UserError(f"{path}: {by_key[key]} and {name} have the same key, {key}; rename one of them")
        by_key[key] = name
        label = labels.get(key)
        if label is None:
            raise UserError(f"{path}: {name}: no {key}.cls; add its class to the tar file")
        if not label.isdecimal() or int(label) >= len(classes):
            raise UserError(f"{path}: {key}.cls: class {label[:20]!r}, {CLASSES} names {len(classes)}; correct either")
        class_name = classes[int(label)]
        names[name] = name if name.startswith(f"{class_name}/") else f"{class_name}/{name}"
    return names


def _members(path: Path, is_read: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield the names of the files in a tar file, with the bytes of those for which `is_read` is true."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    name = posixpath.normpath(member.name).lstrip("/")
                    stream = tar.extractfile(member) if is_read(name) else None
                    yield name, b"" if stream is None else stream.read()
            # tarfile mistakes a damaged header for the end of the archive, which is marked by zeros.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("bad header")
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        reason = str(error).partition("\n")[0]  # tarfile lists one reason for each compression
        raise UserError(f"{path}: damaged tar file ({reason}); copy it again") from None
