"""Reading YAML and csv files by pydantic models: the first error is one line with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from repro.csv_files import read_csv, read_text
from repro.errors import UserError, did_you_mean

T = TypeVar("T", bound=BaseModel)
_Location = Sequence[int | str]
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, of a dataclass


def load_yaml(path: Path) -> tuple[Any, yaml.Node | None]:
    """Read a YAML file: its content, and the same as nodes. Raises `UserError`, also for a key that is there twice."""
    text = read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
        _check_keys(path, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path} line {mark.line + 1}" if mark else str(path)
        raise UserError(f"{place}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a value such as the date 2020-13-45
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not YAML: nested too deeply") from None
    return content, root


def read_yaml(path: Path, model: type[T]) -> T:
    """Read and validate a YAML file. Raises `UserError` for the first error."""
    content, root = load_yaml(path)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: not keys with values; expected {', '.join(_required(model))}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        location, message = _first_error(error, model)
        key = ".".join(map(str, location))
        raise UserError(f"{path} line {_line(root, location)}: {f'{key}: ' if key else ''}{message}") from None


def read_records(path: Path, model: type[T]) -> Iterator[tuple[str, T]]:
    """Yield the records of a csv file with a header, each with its place for messages, `rows.csv line 3`.

    An empty value is a missing one. Raises `UserError` for the first error, also for a column that `model` lacks.
    """
    columns = _names(model)
    for number, record in read_csv(path, _required(model)):
        place = f"{path} line {number}"
        for column in record:
            if column not in columns:
                raise UserError(f"{path}: unknown column {column!r}{did_you_mean(column, columns)}")
        try:
            yield place, model.model_validate({column: text for column, text in record.items() if text.strip()})
        except ValidationError as error:
            location, message = _first_error(error, model)
            raise UserError(f"{place}: {'.'.join(map(str, location))}: {message}".replace(": : ", ": ")) from None


def _first_error(error: ValidationError, model: type[BaseModel]) -> tuple[_Location, str]:
    """Where the first error is, and what is valid there. A misspelt key comes before the one that it leaves missing."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] in _UNKNOWN), errors[0])
    location, given = first["loc"], first["input"]
    if first["type"] in _UNKNOWN:
        return location, f"unknown key{did_you_mean(str(location[-1]), _names(model, location[:-1]))}"
    if first["type"] == "missing":
        return location, "missing; add it"
    if first["type"] == "literal_error":
        valid = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return location, f"{given!r} is not valid{did_you_mean(str(given), valid)}"
    if first["type"] in ("float_parsing", "float_type"):
        return location, f"{given!r} is not a number"
    if first["type"] == "value_error":
        return location, str(first["ctx"]["error"])
    message = first["msg"].removeprefix("Input ").partition(", unable")[0]
    return location, f"{message}, not {str(given)[:60]!r}"


def _names(model: type[BaseModel], location: _Location = ()) -> list[str]:
    """The keys of a model, or of the one that is nested in it at a location."""
    current: Any = model
    for key in location:
        fields = getattr(current, "model_fields", None) or getattr(current, "__pydantic_fields__", {})
        current = fields[key].annotation if key in fields else (None, *get_args(current))[-1]
    fields = getattr(current, "model_fields", None) or getattr(current, "__dataclass_fields__", {})
    return list(fields)


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _check_keys(path: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(path, each)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise UserError(f"{path} line {key.start_mark.line + 1}: {key.value}: duplicate key; remove one")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            _check_keys(path, value)


def _line(node: yaml.Node, location: _Location) -> int:
    """The line of a key, or of the nearest one around it."""
    line = node.start_mark.line + 1
    for key in location:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
