"""Validates the contents of files with pydantic, which `repro.files` does without."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from repro.errors import UserError
from repro.files import LAUNCH_AGAIN, read_object, shown

T = TypeVar("T")
_adapter: Any = functools.cache(TypeAdapter)  # by type; building one takes a millisecond


def read_validated(path: Path, kind: type[T], next_step: str = LAUNCH_AGAIN, schema: int | None = None) -> T | None:
    """Read a JSON file as a dataclass or pydantic model; return None if there is no file.

    Raises `UserError` for damaged or invalid contents, or if the key `schema` has another value, with `next_step` as
    advice.
    """
    contents = read_object(path, next_step)
    if contents is None:
        return None
    if schema is not None and contents.get("schema") != schema:
        raise UserError(f"{path}: schema {contents.get('schema')!r}, this code reads {schema}; {next_step}")
    return validated(path, kind, contents, next_step)


def validated(path: Path, kind: type[T], value: Any, next_step: str = LAUNCH_AGAIN) -> T:
    """Validate `value`, the contents of the file at `path`, and return it as a `kind`.

    Raises `UserError` for invalid contents, with `next_step` as advice.
    """
    try:
        found: T = _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_errors(error)}; {next_step}") from None
    return found


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
