"""The columns of the frame: their names, their order, and the one type that each has whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.report.seeds import BY_SEED, SEED_COLUMNS
from repro.report.segmentation import segmentation_columns
from repro.report.times import BY_TURN, TIME_COLUMNS
from repro.rows import Table

if TYPE_CHECKING:
    import pandas as pd

ROW_COLUMNS = ("table", "row", "backbone", "method", "arch_sparsity_pct", "data_sparsity_pct", "scale", "n_seeds")
MEASURED_COLUMNS = (
    "params_m",
    "macs_g",
    "flops_saving_pct",
    "flops_saving_alt_pct",
    "time_saving_pct",
    "top1_last_pct",
    "top1_best_pct",
    "top1_std_pct",
)
STATE_COLUMNS = ("state", "reason")
LOCAL_COLUMNS = ("local_top1_last_pct", "local_top1_best_pct", "local_top1_std_pct", "local_data")
LOCAL_SEED_COLUMNS = tuple(f"local_{name}" for name in SEED_COLUMNS)
ORIGIN_COLUMNS = ("n_records", "commits", "cost_note", "time_note")
# Measured columns that a table has where it has the metric.
BY_METRIC = ("speedup", "speedup_max", "throughput_img_s")

_PARTS = ("published", "source", "kind", "delta", "verdict")  # of a metric's cell, beside what was measured
_WHOLE = ("n_seeds", "n_records")
_TEXT = (
    *("table", "row", "backbone", "method", "scale", "local_data", "commits", "cost_note", "time_note"),
    *("run_of", "heat_map", "heat_map_data", "heat_map_missing"),
)
_TEXT_ENDS = (
    *("_source", "_kind", "_verdict", "time_on", "time_device", "time_setting"),
    *(BY_SEED, "_by_seed", "_by_turn", BY_TURN),
)


def columns(table: Table) -> list[str]:
    """The frame's columns, in order."""
    cells = [f"{metric}_{part}" for metric in table.metrics for part in _PARTS]
    seeds = (*SEED_COLUMNS, *LOCAL_SEED_COLUMNS)
    by_seed = (BY_SEED, f"local_{BY_SEED}")
    beside = (*STATE_COLUMNS, *LOCAL_COLUMNS, *ORIGIN_COLUMNS, *TIME_COLUMNS)
    own = [name for name in BY_METRIC if name in table.metrics]
    return [*ROW_COLUMNS, *MEASURED_COLUMNS, *own, *cells, *beside, *seeds, *by_seed, *segmentation_columns(table)]


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """One type a column whatever is in it: text without gaps, whole counts, and numbers that may be absent."""
    for name in frame.columns:
        if name in _TEXT or name in STATE_COLUMNS or name.endswith(_TEXT_ENDS):
            frame[name] = frame[name].astype("object").fillna("").astype("str")
        else:
            frame[name] = frame[name].astype("int64" if name in _WHOLE else "float64")
    return frame
