"""The W&B workspace of a table: accuracy against MACs, a section per backbone, sparsity, training, speed, system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.expr as expr
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from repro.report.cells import Results
from repro.report.local_data import accuracy_axis, published_axis
from repro.tables.rows import Table
from repro.tracking.metric_names import (
    PUBLISHED_GROUP,
    PUBLISHED_TOP1,
    RESULT,
    backbone_metric,
    names_of,
)

_MACS = "cost/macs_g"
_MAX_CURVES = 100  # maximum number of runs in a chart, enough for every row of a table


def build_workspace(results: Results, entity: str, project: str) -> Any:
    """Build the object tree of the workspace; nothing is sent before its `save` is called."""
    table = results.table
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{table.name}, {results.scale} scale",
        sections=[
            *(
                ws.Section(name=name, panels=panels, is_open=True, pinned=index == 0)
                for index, (name, panels, _) in enumerate(sections(results))
            ),
            ws.Section(name="Training and speed", panels=training()),
            *system(results.scale),
        ],
        settings=ws.WorkspaceSettings(x_axis="update", max_runs=_MAX_CURVES, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            filters=run_filter(results),
            groupby=[expr.Config("row")],
            order=[expr.Ordering(expr.Config("row"), ascending=True)],
            pinned_columns=["run:displayName", *(f"summary:{name}" for name in columns(table, metric_group(results)))],
        ),
    )


def run_filter(results: Results, backbone: str | None = None) -> str:
    """Return the W&B filter that selects the runs of a report, in the filter syntax of wandb-workspaces.

    It includes signatures, because otherwise runs with other configs (older defaults, overrides) would be averaged as
    if they were seeds.
    """
    rows = results.rows if backbone is None else results.of_backbones([backbone]).rows
    chosen = ", ".join(f"'{run.signature}'" for row in rows for run in row.evidence.runs.values())
    cell = f"Config('table') = '{results.table.name}' and Config('scale.name') = '{results.scale}'"
    return f"{cell} and Config('signature') in [{chosen}]"


def metric_group(results: Results) -> str:
    """Return the group of the rows' accuracies (`repro.tracking.metric_names`)."""
    first = results.rows[0]
    return names_of(results.table.name, first.row.run_id, first.evidence.config).group


def sections(results: Results) -> list[tuple[str, list[Any], str | None]]:
    """Return the sections that workspace and report share: title, panels, and backbone (None for all runs)."""
    backbones = dict.fromkeys(row.row.backbone for row in results.rows)
    return [
        ("Accuracy against MACs", against_macs(results), None),
        *((results.table.label(name), backbone_curves(results, name), name) for name in backbones),
        ("Sparsity and churn", sparsity(), None),
    ]


def columns(table: Table, group: str) -> list[str]:
    """Return the summary columns shown first in the table of runs."""
    return [
        accuracy_cell(group),
        *(["delta/top1_pct"] if group == PUBLISHED_GROUP else []),
        "verdict/top1_pct",
        "gain/top1_pct" if group == PUBLISHED_GROUP else "gain/local_top1_pct",
        "cost/params_m",
        _MACS,
        "cost/flops_saving_pct",
        *(f"published/{metric}" for metric in table.metrics if metric != "top1_gain_pct"),
    ]


def accuracy_cell(group: str) -> str:
    """Return the summary key of the best accuracy."""
    return f"{RESULT}top1_best_pct" if group == PUBLISHED_GROUP else f"{RESULT}{group}_top1_best_pct"


def against_macs(results: Results) -> list[Any]:
    """Plot measured and published accuracy against the MACs of the published backbone, side by side.

    There are two charts, because a W&B scatter plot shows only one value per run. Their axes are the same if measured
    accuracies are comparable with published ones.
    """
    table, group = results.table, metric_group(results)
    published = [best.value for row in table.rows if (best := row.best_published("top1_pct")) is not None]
    top1 = (math.floor(min(published)) - 1, math.ceil(max(published)) + 1) if published else (None, None)
    own_axis = top1 if group == PUBLISHED_GROUP else (None, None)
    return [
        wr.ScatterPlot(
            title=title,
            x=wr.SummaryMetric(_MACS),
            y=wr.SummaryMetric(accuracy),
            range_y=axis,
            legend_template="${run:displayName}",
        )
        for title, accuracy, axis in (
            (f"Measured {accuracy_title(results, 'best epoch')}", accuracy_cell(group), own_axis),
            (f"Published {published_axis(results)}", "published/top1_pct", top1),
        )
    ]


def accuracy_title(results: Results, epoch: str) -> str:
    """Return the title of measured accuracies: `digits top-1, each epoch (%), local scale, not ImageNet`."""
    return accuracy_axis(results, epoch).replace("\n", ", ")


def backbone_curves(results: Results, backbone: str) -> list[Any]:
    """Plot the curves of one backbone, averaged over the seeds of each row, and the published accuracy."""
    group = metric_group(results)
    accuracy = [backbone_metric(backbone, group, "top1_pct")]
    if group == PUBLISHED_GROUP:
        accuracy.append(f"{backbone}/{PUBLISHED_TOP1}")
    return [
        curve(accuracy_title(results, "each epoch"), accuracy),
        curve("Training loss", [backbone_metric(backbone, group, "train_loss")]),
    ]


def sparsity() -> list[Any]:
    """Plot metrics of the masks and the token selector."""
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
    """Plot training metrics, which do not depend on the method."""
    return [
        curve("Training loss", ["train/loss"]),
        curve("Learning rate", ["train/learning_rate"]),
        curve("Step time (ms)", ["speed/step_time_ms"]),
        curve("Images per second", ["speed/images_per_s"]),
        curve("Time spent waiting for images (%)", ["speed/loader_share_pct"]),
    ]


def system(scale: str) -> list[Any]:
    """Return the section with system metrics, or none at scales at which runs do not send them."""
    panel = curve("", regex="system/.*", x="RelativeTime(Wall)")
    return [ws.Section(name="System", panels=[panel])] if scale == "paper" else []


def curve(title: str, metrics: Sequence[str] = (), regex: str | None = None, x: str = "update") -> Any:
    """Plot one line per row: the mean over its seeds, with the standard deviation as a band."""
    return wr.LinePlot(
        title=title or None,
        x=x,
        y=list(metrics),
        metric_regex=regex,
        groupby=wr.Config("row"),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=_MAX_CURVES,
    )
