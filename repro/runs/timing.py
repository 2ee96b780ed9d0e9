"""A timing on disk: how long a row's model takes against its reference, on one device. It belongs to no run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, TypeAdapter

from repro.errors import UserError
from repro.runs.checking import checked
from repro.runs.files import read_object, write_json

SCHEMA = 1
_MEASURE_AGAIN = "remove it to measure again"


@dataclass(frozen=True)
class Setting:
    """What a time depends on beside the model. `batch` in images; `threads` of the CPU, 0 on a GPU."""

    device: str
    batch: int
    dtype: str
    threads: int
    is_compiled: bool

    @property
    def text(self) -> str:
        """`AMD EPYC, 2 threads, batch 4, float32`."""
        threads = f", {self.threads} {'thread' if self.threads == 1 else 'threads'}" if self.threads else ""
        return f"{self.device}{threads}, batch {self.batch}, {self.dtype}{', compiled' if self.is_compiled else ''}"


@dataclass(frozen=True)
class Timing:
    """Seconds of the reference's and the row's forward pass, measured in turn in one process.

    Attributes:
        pairs: (reference, row) of each turn, after the warm-up.
        faster_by: what makes the row's model physically smaller: `heads and neurons removed`, `tokens dropped`.
        macs_saving_pct: of the model as it was timed, proj's columns of removed heads among them.
    """

    table: str
    row: str
    reference: str
    setting: Setting
    pairs: Annotated[tuple[tuple[PositiveFloat, PositiveFloat], ...], Field(min_length=1)]
    faster_by: str
    macs_saving_pct: float
    provenance: Mapping[str, Any]

    @property
    def seconds(self) -> tuple[float, float]:
        """Medians over the turns: of a batch through the reference, and through the row's model."""
        return statistics.median(pair[0] for pair in self.pairs), statistics.median(pair[1] for pair in self.pairs)

    @property
    def savings_pct(self) -> list[float]:
        """The saving of each turn, in percent of its reference, in ascending order."""
        return sorted(100 * (1 - row / reference) for reference, row in self.pairs)

    @property
    def time_saving_pct(self) -> float:
        """The median of the turns."""
        return statistics.median(self.savings_pct)

    @property
    def range_pct(self) -> tuple[float, float]:
        """First and third quartile of the turns; the median twice where there are fewer than two."""
        if len(self.pairs) < 2:
            return self.time_saving_pct, self.time_saving_pct
        low, _, high = statistics.quantiles(self.savings_pct, n=4, method="inclusive")
        return low, high


def timing_path(root: Path, table: str, row: str, batch: int | None = None) -> Path:
    """Where the timing of a row is: `<root>/<table>/timing/<row>.json`, which the table's column shows.

    Timings at further batches are beside it: `<row>.batch-<N>.json`.
    """
    return root / table / "timing" / f"{row}{'' if batch is None else f'.batch-{batch}'}.json"


def write_timing(root: Path, timing: Timing, is_beside: bool = False) -> Path:
    """Write a timing, atomically; an earlier one of the row is replaced. Returns its path.

    One that `is_beside` replaces only what was there of the same batch.
    """
    path = timing_path(root, timing.table, timing.row, timing.setting.batch if is_beside else None)
    low, high = timing.range_pct
    summary = {"time_saving_pct": timing.time_saving_pct, "first_quartile_pct": low, "third_quartile_pct": high}
    write_json(path, {"schema": SCHEMA, **summary, **asdict(timing)})
    return path


def timings_beside(root: Path, table: str, row: str) -> list[Timing]:
    """The timings of a row at further batches, from the smallest to the largest."""
    path = timing_path(root, table, row)
    numbers = [found.name[len(path.stem) + len(".batch-") : -len(".json")] for found in _beside(path)]
    batches = sorted(int(number) for number in numbers if number.isdecimal())
    found = [read_timing(root, table, row, batch) for batch in batches]
    return [timing for timing in found if timing is not None]


def _beside(path: Path) -> list[Path]:
    return [found for found in path.parent.glob("*.json") if found.name.startswith(f"{path.stem}.batch-")]


def read_timing(root: Path, table: str, row: str, batch: int | None = None) -> Timing | None:
    """The timing of a row, or that beside it; None where it has none. Raises `UserError` for another schema,
    and for one that is damaged or of another row.
    """
    path = timing_path(root, table, row, batch)
    found = read_object(path, _MEASURE_AGAIN)
    if found is None:
        return None
    if found.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {found.get('schema')!r}, this code reads {SCHEMA}; {_MEASURE_AGAIN}")
    timing = checked(path, _TIMING, found, _MEASURE_AGAIN)
    if (timing.table, timing.row) != (table, row):
        raise UserError(f"{path}: is of {timing.table} {timing.row}; {_MEASURE_AGAIN}")
    return timing


_TIMING = TypeAdapter(Timing)
