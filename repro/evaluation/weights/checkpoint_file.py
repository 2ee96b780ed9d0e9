"""Read a checkpoint file of any trainer, in safetensors or `torch.save` format, without running code from it.

The format is detected from the content, not from the name. Trainers store objects next to the weights, such as an
`argparse.Namespace` of arguments or a dataclass of settings. Of such objects, only the attributes are read: their
classes are neither imported nor called. Files with objects that cannot be read in this way are rejected.
"""

from __future__ import annotations

import datetime
import pathlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from repro.errors import UserError, first_few, first_line
from repro.training.weights_file import is_packed, read_weights

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of the format before torch 1.6
_LEGACY_PICKLES = 4  # magic number, protocol, system, object
_TORCH_ALLOWS = re.compile(r"torch\.(_utils\.)?\w+|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.set")
_MAX_HEADER = 100_000_000  # bytes, the limit of safetensors
_SAVE_WEIGHTS = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
# Other formats that are mistaken for checkpoints: their first bytes, and what to do.
_OTHER_FORMATS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull"),
    (rb"\s*(<!doctype html|<html)", "an HTML page, not weights; download the file again, logged in if necessary"),
    (rb"\s*[{\[<]", "a text file, not weights; download the file again"),
    (rb"\x89HDF", "an HDF5 file; convert it to safetensors"),
    (rb"\x1f\x8b", "compressed with gzip; unpack it"),
    (rb".{257}ustar", "a tar archive; unpack it"),
    (rb"\x80[\x02-\x05]", f"a plain pickle, which can run code when it is read; {_SAVE_WEIGHTS}"),
)


@dataclass(frozen=True)
class Contents:
    """The content of a checkpoint file, on the CPU: nested containers of tensors and plain values.

    `unknown_classes` are the qualified names of unknown classes, whose objects were read as plain attributes.
    """

    value: Any
    unknown_classes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Contents:
    """Read a checkpoint file. Raises `UserError` if it is not a checkpoint, is damaged, or cannot be read safely."""
    with path.open("rb") as stream:
        start = stream.read(512)
    if not start:
        raise UserError(f"{path}: an empty file; download or save it again")
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER
    if is_safetensors or start.startswith((_ZIP, _LEGACY)):
        try:
            return _read_safetensors(path) if is_safetensors else _read_torch(path, start.startswith(_ZIP))
        except (UserError, OSError):
            raise
        except Exception as error:  # damaged content can raise any exception
            raise UserError(
                f"{path}: damaged or cut off ({type(error).__name__}: {first_line(error)}); download or save it again"
            ) from None
    for pattern, meaning in _OTHER_FORMATS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise UserError(f"{path}: {meaning}")
    raise UserError(f"{path}: not a file of weights; valid: safetensors, or a file of torch.save")


def describe_unknown(classes: tuple[str, ...]) -> str:
    """Return a message with advice for a file that contains unreadable objects of these classes."""
    return f"contains objects of {first_few(list(classes))}, which cannot be read without running code; {_SAVE_WEIGHTS}"


def _read_safetensors(path: Path) -> Contents:
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    return Contents(read_weights(path) if is_packed(metadata) else load_file(path))


def _read_torch(path: Path, is_zip: bool) -> Contents:
    if is_zip:
        _check_archive(path)
    unknown: tuple[str, ...] = ()
    try:
        with torch.serialization.safe_globals(_PLAIN_VALUES):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else _legacy_globals(path)
            unknown = tuple(sorted(set(names) - {name for _, name in _PLAIN_VALUES}))
        safe = [*_PLAIN_VALUES, *((_AttributesOnly, name) for name in unknown)]
        # A stream, because torch assumes that a path ending in .safetensors has that format.
        with path.open("rb") as stream, warnings.catch_warnings(), torch.serialization.safe_globals(safe):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return Contents(torch.load(stream, map_location="cpu", weights_only=True), unknown)
    except (_CannotCall, pickle.UnpicklingError):
        reason = (
            describe_unknown(unknown) if unknown else f"damaged, or saved with another pickle protocol; {_SAVE_WEIGHTS}"
        )
        raise UserError(f"{path}: {reason}") from None


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.rpartition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        raise UserError(f"{path}: cut off (its zip directory is missing); download or save it again") from None
    if "constants.pkl" in members:
        raise UserError(f"{path}: a TorchScript archive, not weights; {_SAVE_WEIGHTS}")
    if "data.pkl" not in members:
        raise UserError(f"{path}: a zip archive, but not of torch.save; unpack it")


def _legacy_globals(path: Path) -> Iterator[str]:
    with path.open("rb") as stream:
        for _ in range(_LEGACY_PICKLES):
            for opcode, argument, _position in pickletools.genops(stream):
                if opcode.name != "GLOBAL":
                    continue
                name = re.sub("^__builtin__ ", "builtins ", str(argument)).replace(" ", ".")  # protocol 2: Python 2
                if not _TORCH_ALLOWS.fullmatch(name):
                    yield name


class _CannotCall(Exception):
    pass


class _AttributesOnly:
    """Replacement for an unknown class. Objects become empty dictionaries that accept items and attributes."""

    def __new__(cls, *arguments: object) -> OrderedDict[str, Any]:  # type: ignore[misc]
        if arguments:  # arguments of a function, or of a class whose objects are more than their attributes
            raise _CannotCall
        return OrderedDict()


def _numpy_values() -> Iterator[tuple[Callable[..., Any], str]]:
    scalar: Any = np.float64(0).__reduce__()[0]
    reconstruct: Any = np.zeros(1).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of numpy 1 and 2
        yield scalar, f"{module}.scalar"
        yield reconstruct, f"{module}._reconstruct"
    yield np.ndarray, "numpy.ndarray"
    yield np.dtype, "numpy.dtype"
    for code in np.typecodes["All"]:
        dtype = type(np.dtype(code))
        yield dtype, f"numpy.dtypes.{dtype.__name__}"


# Functions that restore plain values, by their names in pickles.
_PLAIN_VALUES: list[Any] = [
    *_numpy_values(),
    *((pathlib.PurePosixPath, f"pathlib.{name}") for name in ("PosixPath", "PurePosixPath")),
    *((pathlib.PureWindowsPath, f"pathlib.{name}") for name in ("WindowsPath", "PureWindowsPath")),
    *((getattr(datetime, name), f"datetime.{name}") for name in ("datetime", "date", "timedelta")),
    (lambda default_factory=None: {}, "collections.defaultdict"),
]
