"""The sinks of a run: its own metrics file, and the mirror that its config asks for."""

from __future__ import annotations

from repro.config import Config
from repro.runs.record import Record
from repro.tracking.sinks import JsonlSink, Sink, Sinks


def open_sinks(record: Record, config: Config, is_first: bool) -> Sinks:
    """Open what the first rank writes to; other ranks write nowhere."""
    if not is_first:
        return Sinks([])
    sinks: list[Sink] = [JsonlSink(record.metrics_file)]
    if config.tracker.mode != "disabled":
        from repro.tracking.client import wanted_mode
        from repro.tracking.wandb_mirror import WandbMirror

        if wanted_mode(config) != "disabled":
            sinks.append(WandbMirror(record, config))
    return Sinks(sinks)
