"""Data that a dashboard adds to a W&B project: a run with the table and its figures, and verdicts in run summaries."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from repro.errors import UserError
from repro.report.cells import Results
from repro.report.frame import frame_of
from repro.tracking.client import client_errors
from repro.tracking.mirror_file import read_mirror
from repro.tracking.sweep import join_or_leave_sweep
from repro.tracking.wandb_project import WandbProject
from repro.tracking.wandb_run import Timeouts, client_settings

TABLE_KEY, FIGURES = "table", "figures/"


def report_name(table: str, scale: str) -> str:
    """Return the name of a report, stored as `report` in the config of its run."""
    return f"{table}/{scale}"


def figures_in(folder: Path) -> dict[str, Path]:
    """Return the figures of a report by the key under which they are logged."""
    return {f"{FIGURES}{path.stem}": path for path in sorted(folder.glob("*.png"))}


def table_content(results: Results) -> dict[str, Any]:
    """Return the frame of a table as plain values: `columns`, and `rows` with None instead of NaN."""
    frame = frame_of(results)
    rows = frame.astype("object").where(frame.notna(), None).to_numpy().tolist()
    return {"name": results.table.name, "scale": results.scale, "columns": list(frame.columns), "rows": rows}


def run_summaries(results: Results) -> dict[str, dict[str, Any]]:
    """Return the values to add to the summaries of a table's runs on W&B, by `entity/project/id`.

    `verdict/<metric>` is the verdict of the run's row over all its seeds; `gain/top1_pct`, or `gain/local_top1_pct` for
    training other than the published one, is the gain of the run's own seed over the dense model (percentage points).
    """
    summaries: dict[str, dict[str, Any]] = {}
    for row in results.own_rows:
        verdicts = {f"verdict/{name}": cell.verdict for name, cell in row.cells.items() if cell.published is not None}
        gain = row.measured["top1_gain_pct"]
        gain_key = "gain/top1_pct" if gain.is_published_training else "gain/local_top1_pct"
        for seed, run in row.evidence.runs.items():
            mirror = read_mirror(run.record.path)
            if mirror is None or not mirror.url:
                continue
            own_gain = {gain_key: gain.sample[seed]} if seed in gain.sample else {}
            summaries[f"{mirror.entity}/{mirror.project}/{mirror.run_id}"] = {**verdicts, **own_gain}
    return summaries


def publish_table(table: Mapping[str, Any], figures: Mapping[str, Path], project: WandbProject) -> str:
    """Log a `table_content` and figures to the report's run; return its URL. Errors of the client propagate."""
    run_id = f"report-{table['name']}-{table['scale']}"
    join_or_leave_sweep(run_id)
    with tempfile.TemporaryDirectory(prefix="repro-dashboard-") as folder:
        run = wandb.init(
            id=run_id,
            name=f"report of {table['name']}, {table['scale']} scale",
            entity=project.entity,
            project=project.name,
            job_type="report",
            config={"report": report_name(table["name"], table["scale"])},
            dir=folder,
            mode="online",
            resume="allow",
            settings=client_settings(Timeouts(init_s=60, finish_s=600), x_disable_stats=True, x_disable_meta=True),
        )
        content = wandb.Table(columns=list(table["columns"]), data=[list(row) for row in table["rows"]])
        run.log({TABLE_KEY: content, **{key: wandb.Image(str(path)) for key, path in figures.items()}})
        run.finish()
        return str(run.url)


def publish_summaries(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write verdicts and gains to the summaries of runs.

    Returns a line for each run that could not be updated: runs are deleted on servers, which is no reason to leave the
    others without verdicts. Errors of the client that concern no single run propagate.
    """
    api = wandb.Api()
    failed = []
    for path, values in summaries.items():
        try:
            with client_errors(f"no verdicts written to {path}"):
                api.run(path).summary.update(dict(values))
        except UserError as error:
            failed.append(str(error))
    return failed
