"""Accuracy gain against savings: a panel each for parameters, FLOPs and time, as wide as the figure."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from repro.report.cells import Results, RowCells
from repro.report.figures.accuracy import beside, draw_points, of_other_training
from repro.report.figures.style import (
    DASHED,
    INK,
    QUIET,
    Look,
    add_legend,
    few_ticks,
    key,
    label_axes,
    method_looks,
    panels,
)
from repro.report.local_data import local_data_of
from repro.report.points import gain_point

_SAVINGS: dict[str, Callable[[RowCells], float | None]] = {  # in percent, by the titles of their panels
    "Parameters": lambda row: row.context.cost.params_saving_pct,
    "FLOPs (table convention)": lambda row: row.context.cost.flops_saving_pct,
    "Time, as timed here": lambda row: row.evidence.timing.time_saving_pct if row.evidence.timing else None,
}
_PANEL_IN, _AROUND_IN = 1.7, 0.95
_BESIDE_IN = 0.03  # distance between points with the same saving: markers overlap, as the axis is numeric
_SMALLEST_PT, _STEP_PT = 3.0, 1.6  # marker sizes: one for each backbone, increasing with model size


def draw_cost(results: Results, width_in: float) -> Figure | None:
    """Draw the gain over the dense row, with its 95 % interval, against the savings relative to the dense row.

    None if no row has a gain. There is a panel for time if `repro bench time` has timed a row.
    """
    local = of_other_training(results)
    shown = local if local.rows else results
    points = {
        name: [
            point
            for row in shown.rows
            if (saving := saving_pct(row)) is not None and (point := gain_point(row, saving)) is not None
        ]
        for name, saving_pct in _SAVINGS.items()
    }
    drawn = [name for name, found in points.items() if found]
    if not drawn:
        return None
    look, table = method_looks(results.table), results.table
    backbones = list(dict.fromkeys(point.row.backbone for point in points[drawn[0]]))
    sizes = {name: _SMALLEST_PT + _STEP_PT * place for place, name in enumerate(backbones)}
    figure, grid = panels(width_in, len(drawn), 1, _PANEL_IN, _AROUND_IN)
    for axes, name in zip(grid, drawn, strict=True):
        axes.set_title(name)
        axes.axhline(0, color=INK, linewidth=0.6, linestyle=DASHED, zorder=1)
        savings = [point.x for point in points[name]]
        for point in beside(points[name], _BESIDE_IN / width_in * (max(savings) - min(savings))):
            draw_points(axes, [point], look[point.row.method], size_pt=sizes[point.row.backbone])
        axes.margins(0.08, 0.08)
        few_ticks(axes)
    data, differs = local_data_of(shown)
    where = f"\n{data}, {results.scale} scale, {differs}" if data else ""
    label_axes(figure, "saving over the dense model (%)", f"gain over dense, best epoch (points){where}")
    methods = {point.row.method for point in points[drawn[0]]}
    keys = [key(table.label(method), style) for method, style in look.items() if method in methods]
    if len(sizes) > 1:
        keys += [key(table.label(name), Look(QUIET, "o"), markersize=size) for name, size in sizes.items()]
    add_legend(figure, keys, "upper")
    return figure
