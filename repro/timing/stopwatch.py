"""`repro bench time`: measures how much time the rows of a table save, with backbones of the published size.

Time depends on shapes, not on values of weights, so models are built with fresh weights and only the heads, neurons and
tokens that the row keeps. (Weights that a mask sets to zero change no shape.) Two models are timed alternately: see
`repro.timing.latency`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from repro.config import Config
from repro.config.costs import method_changes
from repro.config.published_training import paper_config
from repro.distributed import find_device
from repro.errors import count_of
from repro.inference.build import physical_model
from repro.inference.shrink import align
from repro.runs import provenance
from repro.runs.timing import Setting, Timing, read_timing, write_timing
from repro.tables.rows import Row, Table
from repro.timing.latency import time_pairs
from repro.timing.timed_rows import TimedRow, has_published_time, timed_rows

PAIRS = 7
VERDICT_PAIRS = 21  # for a row with a published time, whose verdict needs a narrow confidence interval
# The range of n values covers the median with probability 1 - 2 / 2**n, which exceeds 95 % from n = 6 on.
MIN_INTERVAL_PAIRS = 6
BATCHES = {"cpu": (1, 8), "cuda": (256, 1)}  # in images; the table's column shows the first
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}

PairTimer = Callable[..., tuple[tuple[float, float], ...]]


def time_rows(
    table: Table,
    rows: Sequence[Row],
    root: Path,
    *,
    device: str = "auto",
    batches: Sequence[int] = (),
    is_column_only: bool = False,
    dtype: str | None = None,
    threads: int = 1,
    budget_s: float = 90.0,
    pairs: int | None = None,
    again: bool = False,
    log: Callable[[str], None] = print,
    timer: PairTimer = time_pairs,
) -> list[tuple[Row, int]]:
    """Time rows against their references and write the timings below `root`.

    With one CPU thread, the default, times are CPU times of that thread, which other load hardly affects; with more
    threads they are wall-clock times. Rows of the same shape share a measurement.

    Args:
        table: Table of the rows.
        rows: Rows to time. Rows whose untrained model is not smaller than their reference are left out.
        root: Runs folder to write to.
        device: As torch names it; `auto` for a GPU if there is one.
        batches: Batch sizes in images; the table's column shows the first. Default: `BATCHES` of the device.
        is_column_only: Whether to time only the first batch size.
        dtype: Precision of models and images. Default: `DTYPES` of the device.
        threads: Number of CPU threads.
        budget_s: Total time in seconds. The first batch size may use all of it, further ones what remains.
        pairs: Pairs per row. Default: `VERDICT_PAIRS` in the column of a row with a published time, else `PAIRS`.
        again: Whether to repeat timings of this setting and PyTorch version that have enough pairs for an interval.
        log: Receives a line for each row.
        timer: Times two models, like `time_pairs`.

    Returns:
        Pairs (row, batch size) for which the time did not suffice.

    Raises:
        UserError: If this machine does not have the device.
    """
    torch_device = find_device(device, option="--device ")
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        candidates = timed_rows(table, rows, root)
        if not candidates:
            log(
                f"  {table.name}: nothing to time: none of these rows has a smaller model before training; "
                "repro export times a finished model"
            )
        end = time.monotonic() + budget_s
        skipped = []
        is_gpu = torch_device.type == "cuda"
        for number, batch in enumerate((batches or BATCHES[torch_device.type])[: 1 if is_column_only else None]):
            setting = Setting(
                device=torch.cuda.get_device_name(torch_device) if is_gpu else provenance.cpu_name(),
                batch=batch,
                dtype=dtype or DTYPES[torch_device.type],
                threads=0 if is_gpu else torch.get_num_threads(),
                is_compiled=False,
            )
            stopwatch = Stopwatch(table, root, torch_device, setting, number == 0, pairs, timer)
            due = [row for row in candidates if again or not stopwatch.is_done(row)]
            skipped += [(row, batch) for row in stopwatch.time_all(due, end, log)]
        return skipped
    finally:
        torch.set_num_threads(previous_threads)


@dataclass
class Stopwatch:
    """Times rows of one table in one setting: that of the table's column if `is_column`, else a further one."""

    table: Table
    root: Path
    device: torch.device
    setting: Setting
    is_column: bool
    pairs: int | None
    timer: PairTimer
    _references: dict[str, nn.Module] = field(default_factory=dict)  # only the reference that was timed last

    def is_done(self, timed: TimedRow) -> bool:
        """Return whether the row has a timing of this model, setting and PyTorch version with enough pairs."""
        timing = read_timing(self.root, self.table.name, timed.row.id, None if self.is_column else self.setting.batch)
        return (
            timing is not None
            and abs(timing.macs_saving_pct - timed.macs_saving_pct) <= 1e-6
            and timing.setting == self.setting
            and timing.provenance.get("torch") == torch.__version__
            and len(timing.pairs) >= min(self.pairs or MIN_INTERVAL_PAIRS, MIN_INTERVAL_PAIRS)
        )

    def time_all(self, rows: Sequence[TimedRow], end: float, log: Callable[[str], None]) -> list[Row]:
        """Time the rows until `time.monotonic()` reaches `end`; return the rows that were skipped."""
        by_shape: dict[str, Timing] = {}
        skipped = []
        for index, timed in enumerate(rows):
            shape = _shape(timed.config)
            if shape not in by_shape:
                timing = self._time(timed, len(rows) - index, end)
                if timing is None:
                    skipped.append(timed.row)
                    continue
                by_shape[shape] = timing
            timing = _for_row(by_shape[shape], timed)
            path = write_timing(self.root, timing, not self.is_column)
            low, high = timing.range_pct
            log(
                f"  {timed.row.id}: time saving {timing.time_saving_pct:.1f} % (quartiles {low:.1f} to {high:.1f}, "
                f"{count_of(len(timing.pairs), 'pair')}), {timing.macs_saving_pct:.1f} % fewer MACs; "
                f"{self.setting.text}; {path}"
            )
        return skipped

    def _time(self, timed: TimedRow, remaining: int, end: float) -> Timing | None:
        """Time a row within its share of the time until `end`, for `remaining` rows in total; None if too slow."""
        now = time.monotonic()
        if now >= end:
            return None
        if timed.reference.id not in self._references:
            self._references = {timed.reference.id: self._build(paper_config(timed.reference))}
        has_verdict = self.is_column and has_published_time(self.table, timed.row)
        size = (self.setting.batch, *timed.config.model.input_shape)
        images = torch.randn(size, generator=torch.Generator().manual_seed(0))
        pairs = self.timer(
            self._references[timed.reference.id],
            self._build(timed.config),
            images.to(self.device, getattr(torch, self.setting.dtype)),
            pairs=self.pairs or (VERDICT_PAIRS if has_verdict else PAIRS),
            until=min(end, now + (3 if has_verdict else 1) * (end - now) / remaining),
            deadline=end,
        )
        if not pairs:
            return None
        return Timing(
            table=timed.row.table,
            row=timed.row.id,
            reference=timed.reference.id,
            setting=self.setting,
            pairs=pairs,
            faster_by=timed.faster_by,
            macs_saving_pct=timed.macs_saving_pct,
            provenance={
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "commit": provenance.commit(),
                "what": "forward pass in evaluation mode, fresh weights",
                "clock": "events" if self.device.type == "cuda" else "thread" if self.setting.threads == 1 else "wall",
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )

    def _build(self, config: Config) -> nn.Module:
        return align(physical_model(config)).to(self.device, getattr(torch, self.setting.dtype))


def _for_row(timing: Timing, timed: TimedRow) -> Timing:
    """Return a timing of another row with the same shape as the timing of this row."""
    source = {} if timing.row == timed.row.id else {"timed_as": timing.row}
    return replace(
        timing,
        row=timed.row.id,
        reference=timed.reference.id,
        faster_by=timed.faster_by,
        provenance={**timing.provenance, **source},
    )


def _shape(config: Config) -> str:
    """Return a key of everything on which the time depends. Different methods can have models of the same shape."""
    units = method_changes(config.model, config.method).unit_shares
    tokens = config.method.tokens
    return repr((config.backbone.name, units, tokens and tokens.model_dump_json()))
