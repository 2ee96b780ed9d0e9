"""Whether what a file holds is what it should hold.

Apart from `repro.runs.files`, which a bare machine without pydantic can use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from repro.errors import UserError
from repro.runs.files import LAUNCH_AGAIN, shown

T = TypeVar("T")


def checked(path: Path, kind: TypeAdapter[T], value: Any, next_step: str = LAUNCH_AGAIN) -> T:
    """What a file at `path` holds, as it should be. Raises `UserError`, one line, for the first thing that is wrong."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}: {what_is_wrong(error)}; {next_step}") from None


def what_is_wrong(error: ValidationError) -> str:
    """A pydantic error in a few words: `no wall_s, updates`, or `state should be 'planned' or ..., not 'paused'`."""
    found = error.errors(include_url=False, include_context=False)
    places = [".".join(map(str, one["loc"])) for one in found]
    missing = [place for one, place in zip(found, places, strict=True) if one["type"] == "missing"]
    if missing:
        return f"no {', '.join(missing)}"
    first, place = found[0], places[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key {place}"
    if first["type"] == "too_short":
        return f"too few {place} ({shown(first['input'])})"
    message = first["msg"].removeprefix("Input ").partition(", unable")[0]
    words = f"{place} {message}".strip()
    return f"{words}, not {shown(first['input'])}"
