"""The W&B workspace of a table: accuracy against MACs, a section for each backbone, sparsity, speed,
at the paper's scale the system.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from repro.rows import Row, Table
from repro.tracking.names import PUBLISHED_TOP1, RESULT, accuracy_group, backbone_metric

_MACS = "cost/macs_g"
_CURVES = 100  # runs in one chart: every row of a table


def build_workspace(
    table: Table, rows: Sequence[Row], scale: str, signatures: Mapping[str, Sequence[str]], entity: str, project: str
) -> Any:
    """The object tree of the workspace; nothing is sent before its `save`.

    Args:
        signatures: by row, those of its seeds: what the table is made of, and nothing else may enter a mean.
    """
    group = accuracy_group(scale, is_published_data=True)
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{table.name}, {scale} scale",
        sections=[
            ws.Section(
                name="Accuracy against MACs", panels=against_macs(table, scale, group), is_open=True, pinned=True
            ),
            *(
                ws.Section(
                    name=table.label(backbone), panels=backbone_curves(table, backbone, scale, group), is_open=True
                )
                for backbone in backbones
            ),
            ws.Section(name="Sparsity and churn", panels=sparsity(), is_open=True),
            ws.Section(name="Training and speed", panels=training()),
            *system(scale),
        ],
        settings=ws.WorkspaceSettings(x_axis="update", max_runs=_CURVES, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            filters=filters(table, scale, [one for row in rows for one in signatures[row.id]]),
            groupby=[expr.Config("row")],
            order=[expr.Ordering(expr.Config("row"), ascending=True)],
            pinned_columns=["run:displayName", *(f"summary:{name}" for name in columns(table, scale, group))],
        ),
    )


def filters(table: Table, scale: str, signatures: Sequence[str]) -> str:
    """Which runs: those of the table at one scale with these signatures, in the filter language of wandb-workspaces.

    Without the signatures, runs of another config (older defaults, overrides) would be averaged as if they were seeds.
    """
    chosen = ", ".join(f"'{signature}'" for signature in signatures)
    place = f"Config('table') = '{table.name}' and Config('scale.name') = '{scale}'"
    return f"{place} and Config('signature') in [{chosen}]"


def columns(table: Table, scale: str, group: str) -> list[str]:
    """The summary columns that a table of runs opens with."""
    return [
        accuracy_cell(group),
        *(["delta/top1_pct"] if scale == "paper" else []),
        "cost/params_m",
        _MACS,
        "cost/flops_saving_pct",
        *(f"published/{metric}" for metric in table.metrics if metric != "top1_gain_pct"),
    ]


def accuracy_cell(group: str) -> str:
    """The summary key of the best accuracy."""
    return f"{RESULT}top1_best_pct" if group == "eval" else f"{RESULT}{group}_top1_best_pct"


def against_macs(table: Table, scale: str, group: str) -> list[Any]:
    """Measured and published accuracy over the MACs of the real backbone, side by side.

    Two charts, for a scatter plot of W&B has one value of a run; at the paper's scale both have the same axes. At any
    other they are two data sets.
    """
    dataset = table.label(table.dataset)
    is_comparable = group == "eval"
    measured = f"{dataset} top-1 (%), measured" if is_comparable else f"{scale} scale top-1 (%), not {dataset}"
    top1 = published_range(table)
    return [
        scatter(measured, accuracy_cell(group), top1 if is_comparable else (None, None)),
        scatter(f"{dataset} top-1 (%), published", "published/top1_pct", top1),
    ]


def published_range(table: Table) -> tuple[float | None, float | None]:
    """Top-1 (%) from a little below the lowest published value of the table to a little above the highest."""
    best = [row.best_published("top1_pct") for row in table.rows]
    values = [published.value for published in best if published is not None]
    return (math.floor(min(values)) - 1, math.ceil(max(values)) + 1) if values else (None, None)


def scatter(title: str, accuracy: str, top1: tuple[float | None, float | None]) -> Any:
    """One point a run: MACs across, accuracy up, from `top1[0]` to `top1[1]` percent."""
    return wr.ScatterPlot(
        title=title,
        x=wr.SummaryMetric(_MACS),
        y=wr.SummaryMetric(accuracy),
        range_y=top1,
        legend_template="${run:displayName}",
    )


def backbone_curves(table: Table, backbone: str, scale: str, group: str) -> list[Any]:
    """Curves of one backbone, averaged over the seeds of each row, with the published accuracy as a flat line."""
    own = f"{scale} scale, not {table.label(table.dataset)}" if group != "eval" else table.label(table.dataset)
    accuracy = [backbone_metric(backbone, group, "top1_pct")]
    if group == "eval":
        accuracy.append(f"{backbone}/{PUBLISHED_TOP1}")
    return [
        curve(f"Top-1 (%), {own}", accuracy),
        curve("Training loss", [backbone_metric(backbone, group, "train_loss")]),
    ]


def sparsity() -> list[Any]:
    """What the masks and the token selector do."""
    return [
        curve("Density of all prunable weights", ["sparsity/density"]),
        curve("Share of heads and neurons active", ["sparsity/heads_density", "sparsity/neurons_density"]),
        curve("Density per layer", regex="density/.*"),
        curve("Churn: share of active weights exchanged by a mask update", ["sparsity/churn"]),
        curve("Share of weights ever active", ["sparsity/ever_active"]),
        curve(
            "Share of heads and neurons ever active",
            ["sparsity/heads_ever_active", "sparsity/neurons_ever_active"],
        ),
        curve("Tokens kept", ["tokens/token_keep_rate"]),
        curve("MACs of the model in training (G)", ["cost/model_macs_g"]),
    ]


def training() -> list[Any]:
    """How the training goes, whatever the method."""
    return [
        curve("Training loss", ["train/loss"]),
        curve("Learning rate", ["train/learning_rate"]),
        curve("Step time (ms)", ["speed/step_time_ms"]),
        curve("Images per second", ["speed/images_per_s"]),
        curve("Time spent waiting for images (%)", ["speed/loader_share_pct"]),
    ]


def system(scale: str) -> list[Any]:
    """The section of the machine's own metrics, at the scale where runs send them."""
    panel = curve("", regex="system/.*", x="RelativeTime(Wall)")
    return [ws.Section(name="System", panels=[panel])] if scale == "paper" else []


def curve(title: str, metrics: Sequence[str] = (), regex: str | None = None, x: str = "update") -> Any:
    """A line for each row: the mean over its seeds, with their standard deviation as a band."""
    return wr.LinePlot(
        title=title or None,
        x=x,
        y=list(metrics),
        metric_regex=regex,
        groupby=wr.Config("row"),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_CURVES,
    )
