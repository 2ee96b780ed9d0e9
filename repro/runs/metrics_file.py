"""Reading metrics.jsonl, in which a killed process leaves torn lines and a resumed one says some again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from repro.errors import UserError
from repro.runs.files import shown

_REMEDY = "remove that line"
# Of the kinds that are read again: what each line has beside `update`.
_NUMBERS = {"eval": ("epoch", "top1_pct"), "masks": ("epoch",)}
_MAY_BE = {int, float, type(None)}


def read_metrics(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """The lines in the order of training, each (kind, update) once; none where there is no file.

    With `kind`, those of one kind; the others are not even parsed. A line that is no JSON was torn by the end of its
    process, which says it again. Raises `UserError`, with the number of the line, for one that is not torn and wrong.
    """
    if not path.exists():
        return
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    data = path.read_bytes()
    every = data.splitlines() if kind is None else _lines_with(json.dumps({"kind": kind})[1:-1].encode(), data)
    for line in every:
        try:
            entry = _DECODER.decode(line.decode())
        except _NotANumber as error:
            raise _wrong(path, data, line, str(error)) from None
        except ValueError:  # not JSON, or cut inside a character
            continue
        if isinstance(entry, dict):
            if fault := _fault(entry):
                raise _wrong(path, data, line, fault)
            latest[entry["kind"], entry["update"]] = entry
    yield from sorted(latest.values(), key=lambda entry: (entry["update"], entry["kind"]))


def _fault(entry: dict[str, Any]) -> str:
    """What is wrong with a line; empty where nothing is."""
    kind = entry.get("kind")
    if not isinstance(kind, str):
        return "no kind"
    if type(entry.get("update")) is not int:
        return "no update"
    for name in _NUMBERS.get(kind, ()):
        if entry.get(name) is None:
            return f"{kind} without {name}"
    kinds = [*map(type, entry.values())]
    kinds.remove(str)  # the kind
    if not _MAY_BE.issuperset(kinds):
        name = next(name for name, value in entry.items() if name != "kind" and type(value) not in _MAY_BE)
        return f"{name} should be a number, not {shown(entry[name])}"
    if kind == "eval" and not 0 <= entry["top1_pct"] <= 100:
        return f"top1_pct should be from 0 to 100, not {entry['top1_pct']}"
    return ""


def _wrong(path: Path, data: bytes, line: bytes, fault: str) -> UserError:
    number = data.count(b"\n", 0, data.find(line)) + 1
    return UserError(f"{path}: line {number}: {fault}; {_REMEDY}")


def _lines_with(sought: bytes, data: bytes) -> Iterator[bytes]:
    """The lines that hold these bytes; the others are not even cut out, for a report looks into thousands of files."""
    at = data.find(sought)
    while at >= 0:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield data[data.rfind(b"\n", 0, at) + 1 : end]
        at = data.find(sought, end)


class _NotANumber(Exception):
    """NaN or infinity, which no line of ours has."""


def _refuse(name: str) -> NoReturn:
    raise _NotANumber(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
