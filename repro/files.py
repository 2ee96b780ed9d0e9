"""Atomic file writes: a reader, or the next attempt, never sees a partially written file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from repro.errors import UserError

LAUNCH_AGAIN = "remove it, and launch again"
_MAX_SHOWN = 60  # maximum length of an invalid value in a message, in characters


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds.

    If `durable`, the file and its folder are fsynced, so that either the old or the new file exists after a power
    failure; reports can be rebuilt and need no fsync. An `OSError` without a file name, such as that of a full disk,
    gets the name of `path`. The file has the default permissions of new files, although some writers (safetensors)
    restrict access to the owner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            if not os.fstat(stream.fileno()).st_mode & 0o077:
                os.fchmod(stream.fileno(), _default_mode(temporary))
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):  # a failed write has no file name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _default_mode(sibling: Path) -> int:
    """Return the mode that new files get in this folder, which depends on the umask and the folder's ACL."""
    probe = sibling.with_name(f"{sibling.name}.mode")
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file atomically; `durable` as in `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write a JSON file atomically; `durable` as in `replacing`. Raises `ValueError` for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", durable=durable)


def read_object(path: Path, next_step: str = LAUNCH_AGAIN) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no file.

    Raises `UserError` for a damaged file and for any other value, with `next_step` as advice. NaN and infinity count as
    damage, because `write_json` never writes them.
    """
    try:
        value = JSON_DECODER.decode(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {next_step}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged ({shown(value)} where an object should be); {next_step}")
    return value


def shown(value: Any) -> str:
    """Format a value for a message, truncated if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and infinity in a JSON decoder."""
    raise ValueError(f"{name} is not a JSON number")


JSON_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
