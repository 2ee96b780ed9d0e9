"""The cells that claims rest on: what is known of each, how surely, and in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from repro.report.costs import BY_TOKENS, KEPT_AS_PLANNED, KEPT_ELSEWHERE, KEPT_SO_FAR
from repro.report.expressions import Call, Interval, exact
from repro.report.seeds import BY_SEED, read_by_seed
from repro.report.segmentation import INTERPRETATION
from repro.report.statistics import LEVEL, Estimate, difference, mean_of, median_interval
from repro.report.times import BY_TURN, IMAGES_BY_TURN, TIMED_OTHERWISE, read_by_turn
from repro.report.verdicts import partial
from repro.rows import Table

NOT_RUN_AT_SCALE = "not run at this scale"
NOT_RUN = "not run"
NOT_MEASURED = "not measured"
PARTIAL = "partial"

Lines = Mapping[str, Mapping[str, Any]]  # of a frame, by row
# Metrics that are a difference to the row with nothing removed, and its sign.
_AGAINST_REFERENCE = {"top1_gain_pct": 1, "top1_drop_pct_max": -1}
# Where the turns of a time are, and what is made of each.
_OF_TURN: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "time_saving_pct": (BY_TURN, lambda saving_pct: saving_pct),
    "speedup": (BY_TURN, lambda saving_pct: 1 / (1 - saving_pct / 100)),
    "speedup_max": (BY_TURN, lambda saving_pct: 1 / (1 - saving_pct / 100)),
    "throughput_img_s": (IMAGES_BY_TURN, lambda images_s: images_s),
}


@dataclass(frozen=True)
class Device:
    """What a time was measured on: `CPU` or `GPU`, its name, and the whole setting (threads, batch, dtype) in words."""

    kind: str
    name: str
    setting: str

    @property
    def short(self) -> str:
        """`CPU`, or the name of the GPU: CPUs are no two alike in what they do here, and all of them none of a GPU."""
        return self.kind if self.kind == "CPU" else self.name

    def is_a(self, wanted: str) -> bool:
        """Whether it is what a claim speaks of: a kind (`GPU`) or part of a name (`V100`)."""
        return wanted.lower() == self.kind.lower() or wanted.lower() in self.name.lower()


@dataclass(frozen=True)
class Operand:
    """A cell of a claim.

    Attributes:
        value: all that it may be, at the level asked for; None while the claim cannot rest on it.
        shown: the number in words, with its interval and how it was made; empty where there is none.
        missing: the verdict of a claim that waits for it, and `why`: empty where it is there.
        device: of a time.
    """

    call: Call
    value: Interval | None
    shown: str
    missing: str = ""
    why: str = ""
    device: Device | None = None

    @property
    def text(self) -> str:
        """`measured deit_small/dense params_m = 22.05`."""
        return f"{self.call.function} {' '.join(self.call.arguments)} = {self.shown}"

    @property
    def open_question(self) -> str:
        """Why a claim is undecided though this cell is there; empty for one that is exact."""
        if self.value is None or self.value.low == self.value.high:
            return ""
        if math.isinf(self.value.low) and self.device is not None:
            return f"{' '.join(self.call.arguments)}: too few turns to say how sure the median is"
        if math.isinf(self.value.low):
            return f"{' and '.join(self.call.arguments)}: one seed says nothing of the spread over seeds"
        low, high = self.value
        return f"{' '.join(self.call.arguments)}: between {low:.2f} and {high:.2f} it holds and does not"


def measured(call: Call, lines: Lines, table: Table, level: float = LEVEL) -> Operand:
    """What a report has for `measured('row', 'metric')` or `gain('row', 'other row')`, which are of `table`."""
    row, metric = call.arguments
    if call.function == "gain":
        return _gain(call, row, metric, 1, lines, table, level)
    if metric in _AGAINST_REFERENCE:
        reference = table.reference(next(r.backbone for r in table.every_row if r.id == row))
        if reference is None:
            return Operand(call, None, "", NOT_RUN, f"{row} has no row that it could be compared with")
        return _gain(call, row, reference.id, _AGAINST_REFERENCE[metric], lines, table, level)
    if metric == "top1_pct":
        return _trained(call, (row,), lines, table, lambda seeds: mean_of(*seeds), level)
    line = lines.get(row)
    if line is None:
        return Operand(call, None, "", NOT_RUN, f"{row} is not in this report")
    needs = table.metrics[metric].needs
    if (metric in BY_TOKENS or needs == "device") and line["cost_note"] in (KEPT_AS_PLANNED, KEPT_ELSEWHERE):
        return Operand(call, None, "", NOT_RUN_AT_SCALE)
    if (metric in BY_TOKENS or needs == "device") and line["cost_note"] == KEPT_SO_FAR:
        return Operand(call, None, "", PARTIAL, f"{row}: {_too_few(line, table) or line['state']}")
    if needs == "device" and TIMED_OTHERWISE in line["time_note"]:
        return Operand(call, None, "", NOT_MEASURED, f"{row}: {TIMED_OTHERWISE}")
    number = float(line.get(metric, math.nan))
    if needs == INTERPRETATION and math.isnan(number) and not math.isnan(line[f"local_{metric}"]):
        return Operand(call, None, "", NOT_RUN_AT_SCALE)
    if math.isnan(number):
        return Operand(call, None, "", NOT_MEASURED, f"{row}: no {metric} has been measured")
    if needs == INTERPRETATION and line["heat_map_missing"]:
        return Operand(call, None, "", PARTIAL, f"{row}: {line['heat_map_missing']}")
    if needs == INTERPRETATION:
        return _trained(call, (row,), lines, table, lambda seeds: mean_of(*seeds), level, f"{metric}_by_seed")
    if needs != "device":
        return Operand(call, exact(number), f"{number:.4g}")
    device = Device(*(str(line.get(key, "")) for key in ("time_on", "time_device", "time_setting")))
    return _timed(call, number, line, device, level)


def _timed(call: Call, number: float, line: Mapping[str, Any], device: Device, level: float) -> Operand:
    """A median over turns, with the interval of this level that their order gives."""
    metric = call.arguments[1]
    column, of_turn = _OF_TURN[metric]
    turns = [of_turn(value) for value in read_by_turn(line[column])]
    between = Interval(*median_interval(turns, level))
    digits = 1 if metric.endswith("_pct") else 2
    interval = f"{100 * level:.4g} % interval {between.low:.{digits}f} to {between.high:.{digits}f}"
    sure = interval if math.isfinite(between.low) else f"too few for a {100 * level:.4g} % interval"
    how = f"median of {len(turns)} turns, {sure}; {device.setting}"
    return Operand(call, between, f"{number:.{digits}f} ({how})", device=device)


def _gain(call: Call, row: str, other: str, sign: int, lines: Lines, table: Table, level: float) -> Operand:
    rows = (row, other) if sign > 0 else (other, row)
    return _trained(call, rows, lines, table, lambda seeds: difference(*seeds), level)


def _trained(
    call: Call, rows: tuple[str, ...], lines: Lines, table: Table, estimate: Any, level: float, by_seed: str = BY_SEED
) -> Operand:
    """An estimate over the seeds of one row, or of two that are compared; the claim waits until all seeds are there:
    those asked for, and never fewer than the table's own."""
    missing, whys = set(), []
    for row in rows:
        line = lines.get(row)
        if line is None:
            missing.add(NOT_RUN)
            whys.append(f"{row} is not in this report")
        elif line["local_data"]:
            return Operand(call, None, "", NOT_RUN_AT_SCALE)
        elif line["state"] != "done":
            missing.add(PARTIAL if line["n_seeds"] else NOT_RUN)
            whys.append(f"{row}: {line['state']}")
        elif seeds := _too_few(line, table):
            missing.add(PARTIAL)
            whys.append(f"{row}: {seeds}")
    if NOT_RUN in missing:
        return Operand(call, None, "", NOT_RUN, "; ".join(whys))
    found: Estimate = estimate([read_by_seed(lines[row][by_seed]) for row in rows])
    shown = _words(found, level, "+" if len(rows) > 1 else "")
    if missing:
        return Operand(call, None, shown, PARTIAL, "; ".join(whys))
    return Operand(call, Interval(*found.interval(level)), shown)


def _too_few(line: Mapping[str, Any], table: Table) -> str:
    """`partial (2 of 3)` where fewer seeds are finished than the table has at this scale; else empty."""
    wanted = table.default_seeds(line["scale"])
    return partial(line["n_seeds"], wanted) if line["n_seeds"] < wanted else ""


def _words(found: Estimate, level: float, sign: str) -> str:
    """`+0.28 (95 % interval +0.10 to +0.46, paired by 3 seeds)`."""
    if found.error is None:
        return f"{found.mean:{sign}.2f} ({found.words})"
    low, high = found.interval(level)
    return f"{found.mean:{sign}.2f} ({100 * level:.4g} % interval {low:{sign}.2f} to {high:{sign}.2f}, {found.words})"
