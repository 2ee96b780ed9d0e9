"""Reads metrics.jsonl, in which a killed process may leave an incomplete line and a resumed one repeats entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.files import JSON_DECODER, shown

_REMEDY = "remove that line"
# The numbers that an entry must have besides `update`, by kind.
_REQUIRED = {"eval": ("epoch", "top1_pct"), "masks": ("epoch",)}
_VALUE_TYPES = {int, float, type(None)}


def read_metrics(path: Path, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries in the order of training, each pair of kind and update once; none if there is no file.

    With `kind`, only lines of that kind are parsed. A line that is not JSON is incomplete because its process was
    killed. It is skipped, since the resumed process writes it again. Raises `UserError`, with the line number, for an
    invalid value.
    """
    if not path.exists():
        return
    latest: dict[tuple[str, int], dict[str, Any]] = {}
    data = path.read_bytes()
    sought = b"" if kind is None else json.dumps({"kind": kind})[1:-1].encode()
    for line in [line for line in data.splitlines() if sought in line]:
        try:
            entry = JSON_DECODER.decode(line.decode())
        except (json.JSONDecodeError, UnicodeDecodeError):  # incomplete, possibly within a character
            continue
        except ValueError as error:  # NaN or infinity
            raise _wrong(path, data, line, str(error)) from None
        if isinstance(entry, dict):
            if fault := _fault(entry):
                raise _wrong(path, data, line, fault)
            latest[entry["kind"], entry["update"]] = entry
    yield from sorted(latest.values(), key=lambda entry: (entry["update"], entry["kind"]))


def _fault(entry: dict[str, Any]) -> str:
    """Describe what is wrong with an entry; empty if nothing is."""
    kind = entry.get("kind")
    if not isinstance(kind, str):
        return "no kind"
    if type(entry.get("update")) is not int:
        return "no update"
    for name in _REQUIRED.get(kind, ()):
        if entry.get(name) is None:
            return f"{kind} without {name}"
    for name, value in entry.items():
        if name != "kind" and type(value) not in _VALUE_TYPES:
            return f"{name} should be a number, not {shown(value)}"
    if kind == "eval" and not 0 <= entry["top1_pct"] <= 100:
        return f"top1_pct should be from 0 to 100, not {entry['top1_pct']}"
    return ""


def _wrong(path: Path, data: bytes, line: bytes, fault: str) -> UserError:
    number = data.count(b"\n", 0, data.find(line)) + 1
    return UserError(f"{path}: line {number}: {fault}; {_REMEDY}")
