"""Metric sinks, which receive the metric entries of a run: metrics.jsonl, and the mirror selected by the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from repro.config import Config
from repro.runs.record import Record
from repro.tracking.login import is_disabled


class Sink(Protocol):
    """Receives metric entries: `kind` (train, eval, masks), `update`, and numbers with the unit in their names."""

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write one entry."""

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Close the sink. `summary` is the result of a finished run, or None."""


class JsonlSink:
    """metrics.jsonl: append-only, one JSON object per line, flushed after each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a+b")
        self._stream.seek(0, 2)
        if self._stream.tell():
            self._stream.seek(-1, 2)
            if self._stream.read(1) != b"\n":  # a killed process left an incomplete line
                self._stream.write(b"\n")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line. Raises `ValueError` for NaN or infinity."""
        self._stream.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        self._stream.flush()

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Close the file."""
        self._stream.close()


class Sinks:
    """Passes entries to several sinks, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write the entry to each sink."""
        for sink in self._sinks:
            sink.write(entry)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Close each sink."""
        for sink in self._sinks:
            sink.close(summary)


def open_sinks(record: Record, config: Config, is_first: bool) -> Sinks:
    """Open the sinks of the first rank. Other ranks have no sinks and write nothing."""
    if not is_first:
        return Sinks([])
    sinks: list[Sink] = [JsonlSink(record.metrics_file)]
    if not is_disabled(config):
        from repro.tracking.wandb_mirror import WandbMirror  # imports the client

        sinks.append(WandbMirror(record, config))
    return Sinks(sinks)
