"""Scatter plots of accuracy against MACs and against sparsity, with a panel per backbone and a marker per method."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.cells import Results, RowCells
from repro.report.figures.style import (
    DASHED,
    INK,
    PAPER,
    QUIET,
    Look,
    add_legend,
    at_distance,
    few_ticks,
    key,
    label_axes,
    method_looks,
    n_across,
    panels,
)
from repro.report.local_data import PUBLISHED_BACKBONE, accuracy_axis, published_axis
from repro.report.points import Point, counted_macs_g, measured_point, published_points

_ON_PAGE = 3
_PANEL_IN, _AROUND_IN = 1.75, 0.95
_BESIDE = 0.022  # distance between points with the same x, as a fraction of the panel's width
_MARKER_PT, _STAR_PT = 4.5, 7.0


@dataclass(frozen=True)
class Scatter:
    """A scatter plot of accuracies with one panel per backbone.

    Attributes:
        published: Points of the paper. If there are any, each panel has its own y axis, as backbones differ widely.
        y: Returns the label of the y axis for the rows of the panels.
        levels: Tick labels, if x values are indices of levels.
    """

    results: Results
    published: Sequence[Point]
    measured: Sequence[Point]
    y: Callable[[Results], str]
    x: str
    levels: Sequence[str] = ()

    @property
    def backbones(self) -> list[str]:
        """The backbones with a panel: those with at least two rows, as one row has nothing to be compared with."""
        n_rows = self._n_rows()
        least = min(2, max(n_rows.values(), default=1))
        return [name for name in dict.fromkeys(row.row.backbone for row in self.results.rows) if n_rows[name] >= least]

    @property
    def without_panel(self) -> list[str]:
        """The labels of backbones with points but no panel."""
        return [self.results.table.label(name) for name in self._n_rows() if name not in self.backbones]

    def _n_rows(self) -> Counter[str]:
        return Counter({point.row.id: point.row.backbone for point in (*self.published, *self.measured)}.values())

    def draw(self, width_in: float) -> Figure | None:
        """Draw the panels and a legend; None if there are no points."""
        return _draw(self, width_in) if self.backbones else None


def published_scatter(results: Results) -> Scatter:
    """Return accuracy against MACs on the paper's data: published values, and runs of the published training."""
    shown = [row for row in results.rows if row.context.is_published_training]
    measured = _measured(shown, lambda row: counted_macs_g(row.context.cost))
    published = [point for row in results.rows for point in published_points(row)]
    return Scatter(results, published, measured, published_axis, results.table.macs_label)


def local_scatter(results: Results) -> Scatter:
    """Return accuracy from training other than the published one against the MACs of the published backbone."""
    local = of_other_training(results)
    measured = _measured(local.rows, lambda row: counted_macs_g(row.context.cost))
    return Scatter(local, [], measured, accuracy_axis, f"{results.table.macs_label}, {PUBLISHED_BACKBONE}")


def sparsity_scatter(results: Results) -> Scatter:
    """Return accuracy against weight sparsity, without points for a paper that does not sparsify weights."""
    local = of_other_training(results)
    shown = local if local.rows else results
    levels = sorted({row.row.arch_sparsity_pct for row in shown.rows if row.evidence.n_done})
    measured = _measured(shown.rows, lambda row: levels.index(row.row.arch_sparsity_pct)) if any(levels) else []
    label = "sparsity level of the weights (%)"
    return Scatter(shown, [], measured, accuracy_axis, label, [f"{level:g}" for level in levels])


def of_other_training(results: Results) -> Results:
    """Return the results restricted to rows whose training is not the published one."""
    return replace(results, rows=[row for row in results.rows if not row.context.is_published_training])


def beside(points: Sequence[Point], step: float, least: float = -math.inf) -> list[Point]:
    """Return the points with new x, of at least `least`: those that are closer than `step` are placed side by side."""
    moved = at_distance([point.x for point in points], step, least)
    return [replace(point, x=x) for point, x in zip(points, moved, strict=True)]


def draw_points(
    axes: Axes, points: Sequence[Point], look: Look, *, is_solid: bool = True, size_pt: float | None = None
) -> None:
    """Draw the points of one method with error bars: on top of hollow markers, because they may be shorter."""
    if not points:
        return
    lows = [point.y - point.y_low or math.nan for point in points]  # NaN draws no bar instead of one of zero length
    highs = [point.y_high - point.y or math.nan for point in points]
    axes.errorbar(
        [point.x for point in points],
        [point.y for point in points],
        xerr=[point.x_error or math.nan for point in points],
        yerr=[lows, highs],
        color=look.colour,
        marker=look.marker,
        markersize=size_pt or (_STAR_PT if look.marker == "*" else _MARKER_PT),
        markerfacecolor=look.colour if is_solid else PAPER,
        markeredgewidth=0.5 if is_solid else 0.9,
        elinewidth=0.7,
        capsize=1.2 if is_solid else 2.5,
        barsabove=not is_solid,
        linestyle="none",
        zorder=3,
    )


def _measured(rows: Iterable[RowCells], x: Callable[[RowCells], float]) -> list[Point]:
    finished = [row for row in rows if row.evidence.n_done]
    return [point for row in finished if (point := measured_point(row, x(row))) is not None]


def _draw(scatter: Scatter, width_in: float) -> Figure:
    shown, levels = scatter.backbones, scatter.levels
    results = scatter.results.of_backbones(shown)
    published, measured = (
        [p for p in points if p.row.backbone in shown] for points in (scatter.published, scatter.measured)
    )
    look = method_looks(results.table)
    across = n_across(width_in, _ON_PAGE)
    figure, grid = panels(width_in, len(shown), across, _PANEL_IN, _AROUND_IN, same_y=not published)
    for axes, backbone in zip(grid, shown, strict=True):
        axes.set_title(results.table.label(backbone))
        own = [point for point in measured if point.row.backbone == backbone]
        _draw_panel(
            axes, [point for point in published if point.row.backbone == backbone], own, look, are_levels=bool(levels)
        )
        if levels:
            places = sorted({round(point.x) for point in own})
            axes.set_xticks(places, [levels[place] for place in places])
    label_axes(figure, scatter.x, scatter.y(results))
    methods, solid = ({point.row.method for point in points} for points in ((*published, *measured), measured))
    keys = [
        key(
            _with_tokens(results, method, [*published, *measured]),
            style,
            markersize=_STAR_PT if style.marker == "*" else _MARKER_PT,
            markerfacecolor=style.colour if method in solid else PAPER,
        )
        for method, style in look.items()
        if method in methods
    ]
    if published:
        keys += [key("published", Look(QUIET, "o"), markerfacecolor=PAPER)]
        keys += [key("measured", Look(QUIET, "o"))] if measured else []
    add_legend(figure, keys, "upper")
    return figure


def _draw_panel(
    axes: Axes, published: Sequence[Point], measured: Sequence[Point], looks: Mapping[str, Look], *, are_levels: bool
) -> None:
    """Draw the points of a panel. Unless x values are levels, none is moved below the smallest: MACs are positive."""
    for method, look in looks.items():
        draw_points(axes, [point for point in published if point.row.method == method], look, is_solid=False)
    places = [point.x for point in (*published, *measured)]
    step = _BESIDE * (max(places) - min(places))
    order = list(looks)
    measured = sorted(measured, key=lambda point: (order.index(point.row.method), point.row.data_sparsity_pct))
    moved = beside(measured, step, -math.inf if are_levels else min(places))
    for method in dict.fromkeys(point.row.method for point in measured):
        draw_points(axes, [point for point in moved if point.row.method == method], looks[method])
    for point in (*published, *measured):
        if looks[point.row.method].colour == INK:  # the dense row
            axes.axhline(point.y, color=INK, linestyle=DASHED, linewidth=0.6, zorder=1)
    axes.margins(0.08, 0.08)
    few_ticks(axes)


def _with_tokens(results: Results, method: str, points: Sequence[Point]) -> str:
    """Return a method's name, with the shares of tokens that it drops if it drops any."""
    shares = sorted({point.row.data_sparsity_pct for point in points if point.row.method == method})
    name = results.table.label(method)
    return f"{name} ({', '.join(f'{share:g}' for share in shares)} % of tokens dropped)" if any(shares) else name
