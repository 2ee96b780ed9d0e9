"""Validates the contents of files with pydantic, which `repro.files` does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from repro.errors import UserError
from repro.files import LAUNCH_AGAIN, shown

T = TypeVar("T")


def validated(path: Path, kind: TypeAdapter[T], value: Any, next_step: str = LAUNCH_AGAIN) -> T:
    """Validate `value`, the contents of the file at `path`, and return it.

    Raises `UserError` for invalid contents, with `next_step` as advice.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_errors(error)}; {next_step}") from None


def describe_errors(error: ValidationError) -> str:
    """Describe a pydantic error: `no wall_s, updates`, or `state should be 'planned' or ..., not 'paused'`."""
    errors = error.errors(include_url=False, include_context=False)
    keys = [".".join(map(str, one["loc"])) for one in errors]
    missing = [key for one, key in zip(errors, keys, strict=True) if one["type"] == "missing"]
    if missing:
        return f"no {', '.join(missing)}"
    first, key = errors[0], keys[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if first["type"] == "too_short":
        return f"too few {key} ({shown(first['input'])})"
    message = first["msg"].removeprefix("Input ").partition(", unable")[0]
    return f"{f'{key} {message}'.strip()}, not {shown(first['input'])}"
