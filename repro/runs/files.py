"""Writing files so that a reader, or the next attempt, never sees half of one."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from repro.errors import UserError

LAUNCH_AGAIN = "remove it, and launch again"
_MOST_SHOWN = 60  # characters of a value that is wrong


@contextmanager
def replacing(path: Path, *, is_kept: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that is fsynced and renamed onto it when the block ends well.

    The directory is fsynced too: after a power cut there is the old file or the new one, never none. Where it is not
    `is_kept`, because it can be made again, nothing waits for the disk: a report is 26 files. An `OSError` of
    the block that names no file (a write to a full disk), or the temporary one, leaves with the name of `path`.
    Whoever may read a new file here may read this one: some writers (safetensors) make theirs for its owner alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            if not os.fstat(stream.fileno()).st_mode & 0o077:
                os.fchmod(stream.fileno(), _usual_mode(temporary))
            if is_kept:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if is_kept:
            _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):  # a write that fails knows no name
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


def _usual_mode(beside: Path) -> int:
    """What a new file is given here, which the umask and the folder's own rules decide."""
    probe = beside.with_name(f"{beside.name}.mode")
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def write_text(path: Path, text: str, *, is_kept: bool = True) -> None:
    """Write a text file, atomically; `is_kept` as in `replacing`."""
    with replacing(path, is_kept=is_kept) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, is_kept: bool = True) -> None:
    """Write a JSON file, atomically; `is_kept` as in `replacing`. Raises `ValueError` for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", is_kept=is_kept)


def read_json(path: Path, next_step: str = LAUNCH_AGAIN) -> Any | None:
    """The value in a JSON file; None where there is no file.

    Raises `UserError` for one that is damaged, with `next_step`, what to do about it. NaN and infinity are damage: no
    file of ours has them.
    """
    try:
        return _DECODER.decode(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {next_step}") from None


def read_object(path: Path, next_step: str = LAUNCH_AGAIN) -> dict[str, Any] | None:
    """As `read_json`, of a file that holds an object; `UserError` for one that holds anything else."""
    value = read_json(path, next_step)
    if isinstance(value, dict):
        return value
    if value is None and not path.exists():
        return None
    raise UserError(f"{path}: damaged ({shown(value)} where an object should be); {next_step}")


def shown(value: Any) -> str:
    """A value as an error names it, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def refuse_constant(name: str) -> NoReturn:
    """What a JSON decoder does with NaN and infinity."""
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)
