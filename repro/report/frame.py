"""The data frame of a report, which is also its CSV file: one line per table row, rendered from the cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro.report.adopted import weights_verdict
from repro.report.cells import Cell, Results, RowCells
from repro.report.costs import cost_note
from repro.report.measures import MEASURES, interval_of_gain
from repro.report.segmentation import is_segmentation
from repro.report.statistics import median_interval
from repro.report.times import images_s, time_note
from repro.report.verdicts import NO_PUBLISHED_VALUE
from repro.tables.rows import Metric, Table

if TYPE_CHECKING:
    import pandas as pd

_ROW = ("table", "row", "backbone", "method", "arch_sparsity_pct", "data_sparsity_pct", "scale", "n_seeds")
_COUNTS = ("params_m", "macs_g", "flops_saving_pct", "flops_saving_alt_pct")
_ACCURACIES = ("top1_last_pct", "top1_best_pct", "top1_std_pct")
_CELL = ("published", "source", "kind", "delta", "verdict")
_STATE = ("state", "reason")
_ORIGIN = ("n_records", "commits", "cost_note", "time_note")
_TIME = (
    *("time_low_pct", "time_high_pct", "time_turns", "time_by_turn_pct", "img_s_by_turn"),
    *("time_on", "time_device", "time_setting"),
)
_OVER_SEEDS = (
    *("top1_ci95_low_pct", "top1_ci95_high_pct", "top1_last_std_pct"),
    *("gain_n", "gain_pct", "gain_std_pct", "gain_ci95_low_pct", "gain_ci95_high_pct"),
)
_HEAT_MAP = (
    *("run_of", "heat_map", "heat_map_data", "heat_map_images", "heat_map_is_whole", "heat_map_seeds"),
    "heat_map_missing",
)
_EVIDENCE = ("highest_evidence", "weights_files", "weights_top1_by_file_pct", "weights_verdicts", "weights_origins")
_BY_SEED = "top1_by_seed_pct"
# Metrics whose values are already in the columns above.
_WITHOUT_COLUMN = ("top1_pct", "top1_last_pct", "top1_gain_pct", "top1_drop_pct_max")

_WHOLE_NUMBERS = ("n_seeds", "n_records", "weights_files")
_TEXT = (
    *("table", "row", "backbone", "method", "scale", "state", "reason", "local_data", "commits"),
    *("cost_note", "time_note", "time_on", "time_device", "time_setting"),
    *("run_of", "heat_map", "heat_map_data", "heat_map_missing"),
    *("highest_evidence", "weights_top1_by_file_pct", "weights_verdicts", "weights_origins"),
)
_TEXT_ENDS = ("_source", "_kind", "_verdict", "_by_turn_pct", "_by_turn", "_by_seed_pct", "_by_seed")


def local(name: str) -> str:
    """Return the column name for values from training other than the published one."""
    return f"local_{name}"


def columns(table: Table) -> list[str]:
    """Return the frame's columns, in order."""
    metrics = table.metrics.values()
    timed = [name for name in MEASURES if name in table.metrics and table.metrics[name].needs == "device"]
    counted = [metric.name for metric in metrics if metric.needs == "analysis" and metric.name not in _COUNTS]
    trained = [
        one for one in metrics if one.needs in ("training", "interpretation") and one.name not in _WITHOUT_COLUMN
    ]
    return [
        *_ROW,
        *_COUNTS,
        "time_saving_pct",
        *_ACCURACIES,
        *(name for name in (*counted, *timed) if name != "time_saving_pct"),
        *(f"{name}_{part}" for name in table.metrics for part in _CELL),
        *_STATE,
        *(local(name) for name in _ACCURACIES),
        "local_data",
        *_ORIGIN,
        *_TIME,
        *_OVER_SEEDS,
        *(local(name) for name in _OVER_SEEDS),
        *(_BY_SEED, local(_BY_SEED)),
        *(_HEAT_MAP if any(map(is_segmentation, metrics)) else ()),
        *(name for metric in trained for prefix in ("", "local_") for name in _seeds(metric, prefix)),
        *_EVIDENCE,
    ]


def _seeds(metric: Metric, prefix: str) -> tuple[str, str, str]:
    """Return the column names of a trained metric: mean, standard deviation, and values by seed."""
    return f"{prefix}{metric.name}", f"{prefix}{metric.name}_std", f"{prefix}{metric.name}_by_seed"


def frame_of(results: Results) -> pd.DataFrame:
    """Return the frame of the requested rows."""
    import pandas as pd

    lines = [_line(results, row) for row in results.rows]
    return _typed(pd.DataFrame(lines, columns=columns(results.table)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Cast each column to a fixed dtype: strings without missing values, integer counts, or floats with NaN."""
    for name in frame.columns:
        if name in _TEXT or name.endswith(_TEXT_ENDS):
            frame[name] = frame[name].astype("object").fillna("").astype("str")
        else:
            frame[name] = frame[name].astype("int64" if name in _WHOLE_NUMBERS else "float64")
    return frame


def _line(results: Results, row: RowCells) -> dict[str, Any]:
    table, evidence = results.table, row.evidence
    line: dict[str, Any] = {
        "table": table.name,
        "row": row.row.id,
        "backbone": row.row.backbone,
        "method": row.row.method,
        "arch_sparsity_pct": row.row.arch_sparsity_pct,
        "data_sparsity_pct": row.row.data_sparsity_pct,
        "scale": results.scale,
        "n_seeds": evidence.n_done,
        "state": row.state,
        "reason": row.reason,
        "n_records": evidence.n_records,
        "commits": " ".join(evidence.commits),
        **{f"{name}_verdict": NO_PUBLISHED_VALUE for name in table.metrics},
        **_ladder(table, row),
    }
    for cell in row.cells.values():
        line |= _cell(cell)
    if row.row.reads_runs_of:
        return line | _heat_map(table, row)
    is_published = row.context.is_published_training
    prefix = "" if is_published else "local_"
    return line | {
        **{name: getattr(row.context.cost, name) for name in _COUNTS},
        **_times(row),
        "cost_note": cost_note(row.context),
        "time_note": time_note(row.context),
        "local_data": "" if is_published else evidence.config.data.name,
        **{f"{prefix}{name}": value for name, value in _over_seeds(row).items()},
    }


def _ladder(table: Table, row: RowCells) -> dict[str, Any]:
    every = row.evidence.adopted
    return {
        "highest_evidence": row.context.rung,
        "weights_files": len(every),
        "weights_top1_by_file_pct": " ".join(f"{one.file.sha256[:8]}={one.top1_pct:.10g}" for one in every),
        "weights_verdicts": "; ".join(weights_verdict(table, row.row, one) for one in every),
        "weights_origins": "; ".join(one.file.origin for one in every),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    metric, measured, published = cell.metric, cell.measured, cell.published
    line: dict[str, Any] = {f"{metric.name}_verdict": cell.verdict, f"{metric.name}_delta": cell.delta}
    if published is not None:
        values = (published.value, published.source, published.kind)
        line |= {f"{metric.name}_{part}": value for part, value in zip(_CELL, values, strict=False)}
    if metric.needs in ("analysis", "device"):
        return line | {metric.name: measured.value}
    names = _seeds(metric, "" if measured.is_comparable else "local_")
    return line | dict(zip(names, (measured.value, measured.std, by_seed_text(measured.sample)), strict=True))


def _over_seeds(row: RowCells) -> dict[str, Any]:
    best, last, gain = (row.measured[name] for name in ("top1_pct", "top1_last_pct", "top1_gain_pct"))
    return {
        "top1_last_pct": last.value,
        "top1_best_pct": best.value,
        "top1_std_pct": best.std,
        **_interval(best.finite_interval, "top1_ci95"),
        "top1_last_std_pct": last.std,
        "gain_n": gain.n or None,
        "gain_pct": gain.value,
        "gain_std_pct": gain.std,
        **_interval(interval_of_gain(row.evidence, row.context.reference) if gain.sample else None, "gain_ci95"),
        _BY_SEED: by_seed_text(best.sample),
    }


def _interval(interval: tuple[float, float] | None, name: str) -> dict[str, float]:
    return {} if interval is None else dict(zip((f"{name}_low_pct", f"{name}_high_pct"), interval, strict=True))


def _times(row: RowCells) -> dict[str, Any]:
    timing = row.evidence.timing
    if timing is None:
        return {}
    low, high = median_interval(timing.savings_pct)
    return {
        "time_saving_pct": timing.time_saving_pct,
        "time_low_pct": low if math.isfinite(low) else None,
        "time_high_pct": high if math.isfinite(high) else None,
        "time_turns": len(timing.pairs),
        "time_by_turn_pct": _by_turn_text(timing.savings_pct),
        "img_s_by_turn": _by_turn_text(images_s(timing)),
        "time_on": timing.setting.kind,
        "time_device": timing.setting.device,
        "time_setting": timing.setting.text,
    }


def _heat_map(table: Table, row: RowCells) -> dict[str, Any]:
    found, datasets = row.context.segmentation, [one.dataset for one in table.metrics.values() if is_segmentation(one)]
    assert found is not None
    return {
        "run_of": row.row.reads_runs_of,
        "heat_map": row.row.heat_map,
        "heat_map_data": found.data,
        "heat_map_images": found.images or None,
        "heat_map_is_whole": float(found.is_of(datasets[0])) if found.images else None,
        "heat_map_seeds": found.seeds or None,
        "heat_map_missing": found.missing,
    }


def by_seed_text(values: Mapping[int, float]) -> str:
    """Format values by seed for one field of the CSV: `0=79.9 1=80.1`."""
    return " ".join(f"{seed}={value:.10g}" for seed, value in values.items())


def _by_turn_text(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
