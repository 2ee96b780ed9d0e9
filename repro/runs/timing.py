"""Timings on disk: the times of a row's model and of its reference on one device. They do not belong to a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from repro.errors import UserError
from repro.files import write_json
from repro.runs.validation import read_validated

SCHEMA = 1
_MEASURE_AGAIN = "remove it to measure again"


@dataclass(frozen=True)
class Setting:
    """What a time depends on besides the model: `batch` is in images, `threads` is 0 on a GPU."""

    device: str
    batch: int
    dtype: str
    threads: int
    is_compiled: bool

    @property
    def kind(self) -> str:
        """`CPU` or `GPU`."""
        return "CPU" if self.threads else "GPU"

    @property
    def text(self) -> str:
        """For example `AMD EPYC, 2 threads, batch 4, float32`."""
        threads = f", {self.threads} {'thread' if self.threads == 1 else 'threads'}" if self.threads else ""
        return f"{self.device}{threads}, batch {self.batch}, {self.dtype}{', compiled' if self.is_compiled else ''}"


@dataclass(frozen=True)
class Timing:
    """Seconds of the reference's and the row's forward pass, measured alternately in one process."""

    table: str
    row: str
    reference: str
    setting: Setting
    # Seconds of (reference, row) in each round after the warm-up.
    pairs: Annotated[tuple[tuple[PositiveFloat, PositiveFloat], ...], Field(min_length=1)]
    faster_by: str  # `heads and neurons removed`, `tokens dropped`
    macs_saving_pct: float  # of the model as timed, in which removed heads also shrink the output projection
    provenance: Mapping[str, Any]

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of a batch through the reference and through the row's model."""
        return statistics.median(pair[0] for pair in self.pairs), statistics.median(pair[1] for pair in self.pairs)

    @property
    def savings_pct(self) -> list[float]:
        """The saving of each round, in percent of the reference, ascending."""
        return sorted(100 * (1 - row / reference) for reference, row in self.pairs)

    @property
    def time_saving_pct(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.savings_pct)

    @property
    def range_pct(self) -> tuple[float, float]:
        """First and third quartile over the rounds; the median twice for a single round."""
        if len(self.pairs) < 2:
            return self.time_saving_pct, self.time_saving_pct
        low, _, high = statistics.quantiles(self.savings_pct, n=4, method="inclusive")
        return low, high


def timing_path(root: Path, table: str, row: str, batch: int | None = None) -> Path:
    """Return the path of a row's timing, `<root>/<table>/timing/<row>.json`, which the table shows.

    Timings at further batch sizes are next to it: `<row>.batch-<N>.json`.
    """
    return root / table / "timing" / f"{row}{'' if batch is None else f'.batch-{batch}'}.json"


def write_timing(root: Path, timing: Timing, is_extra_batch: bool = False) -> Path:
    """Write the timing of a row atomically and return its path.

    With `is_extra_batch`, it is written next to the row's timing, as one at a further batch size.
    """
    path = timing_path(root, timing.table, timing.row, timing.setting.batch if is_extra_batch else None)
    low, high = timing.range_pct
    summary = {"time_saving_pct": timing.time_saving_pct, "first_quartile_pct": low, "third_quartile_pct": high}
    write_json(path, {"schema": SCHEMA, **summary, **asdict(timing)})
    return path


def timings_by_batch(root: Path, table: str, row: str) -> list[Timing]:
    """Return the timings of a row at further batch sizes, ascending."""
    path = timing_path(root, table, row)
    prefix = f"{path.stem}.batch-"
    sizes = [file.stem[len(prefix) :] for file in path.parent.glob("*.json") if file.name.startswith(prefix)]
    batches = sorted(int(size) for size in sizes if size.isdecimal())
    timings = [read_timing(root, table, row, batch) for batch in batches]
    return [timing for timing in timings if timing is not None]


def read_timing(root: Path, table: str, row: str, batch: int | None = None) -> Timing | None:
    """Read the timing of a row, at a further batch size if `batch` is given; return None if there is none.

    Raises `UserError` if the file is damaged.
    """
    path = timing_path(root, table, row, batch)
    timing = read_validated(path, Timing, _MEASURE_AGAIN, SCHEMA)
    if timing is not None and (timing.table, timing.row) != (table, row):
        raise UserError(f"{path}: is the timing of {timing.table} {timing.row}; {_MEASURE_AGAIN}")
    return timing
