"""Where metric lines go: the record's own file first, mirrors after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Sink(Protocol):
    """Takes metric entries: `kind` (train, eval), `update`, and numbers with units in their names."""

    def write(self, entry: Mapping[str, Any]) -> None:
        """Take one entry."""

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """No more entries; `summary` is the result of a finished run."""


class JsonlSink:
    """metrics.jsonl: append-only, a line at a time, flushed. The truth that everything else is rebuilt from."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a+b")
        self._stream.seek(0, 2)
        if self._stream.tell():
            self._stream.seek(-1, 2)
            if self._stream.read(1) != b"\n":  # a killed process left half a line; it must not spoil the next
                self._stream.write(b"\n")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line. Raises `ValueError` for NaN and infinity."""
        self._stream.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        self._stream.flush()

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Close the file."""
        self._stream.close()


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Give the entry to each sink, in order."""
        for sink in self._sinks:
            sink.write(entry)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Close each sink."""
        for sink in self._sinks:
            sink.close(summary)
