"""A table's own figure: accuracy against MACs, a panel per backbone, published points and measured ones told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report.local_data import PUBLISHED_BACKBONE, accuracy_axis, published_axis
from repro.report.points import Point, counted_macs_g, published_point
from repro.report.style import REFERENCE_COLOUR, Look, few_ticks, looks, write_figure
from repro.report.view import rows_by_id
from repro.rows import Row, Table

_SAME_LINE_POINTS = 0.05  # two published values of the reference that are closer than this are one line
_DASHED, _DOTTED = (0, (5, 3)), (0, (1, 2))
_REFERENCE_MARKER = "*"
_LEGEND_LINES = 3


def table_figure(frame: pd.DataFrame, table: Table, folder: Path) -> list[Path]:
    """Write `<table.figure>.svg`, `.png` and `.pdf` into `folder`; returns their paths, none for a frame without rows.

    MACs are by the figure convention (attention products of removed heads credited), as in the paper's overview figure:
    a published point stands where its published saving puts it, any other where its count does. Accuracies of another
    scale or data set than the paper's have a second row of panels to themselves.
    """
    if frame.empty:  # only rows that are no points were asked for
        return []
    return write_figure(folder, table.figure, f"{frame.to_csv()}{table}", lambda: draw_table_figure(frame, table))


def draw_table_figure(frame: pd.DataFrame, table: Table) -> Figure:
    """The figure itself: `axes` row by row, first those of the paper's accuracies, then those of the local ones."""
    rows = rows_by_id(table)
    backbones = list(dict.fromkeys(frame["backbone"]))
    look = method_looks(table)
    has_local = bool(frame["local_top1_best_pct"].notna().any())
    figure = Figure(figsize=(max(5.0, 3.1 * len(backbones)), 5.9 if has_local else 3.7), layout="constrained")
    grid = figure.subplots(2 if has_local else 1, len(backbones), sharex="col", squeeze=False)
    for column, backbone in enumerate(backbones):
        lines: list[dict[str, Any]] = frame[frame["backbone"] == backbone].to_dict("records")
        reference = table.reference(backbone)
        upper: Axes = grid[0][column]
        upper.set_title(table.label(backbone))
        if reference is not None:
            _draw_reference(upper, reference)
        _draw_published(upper, lines, rows, look)
        _draw_measured(upper, lines, look, "")
        if not upper.has_data():
            upper.text(0.5, 0.5, "no published accuracy", transform=upper.transAxes, ha="center", va="center")
            upper.set_yticks([])
        if has_local:
            _draw_measured(grid[1][column], lines, look, "local_")
        grid[-1][column].set_xlabel(f"{table.macs_label},\n{PUBLISHED_BACKBONE}" if has_local else table.macs_label)
        for axes in grid[:, column]:
            axes.margins(0.08, 0.1)
            if axes.has_data():
                few_ticks(axes)
    grid[0][0].set_ylabel(published_axis(frame, table))
    if has_local:
        grid[1][0].set_ylabel(accuracy_axis(frame, table))
        for axes in grid[1]:
            axes.set_facecolor("#f6f4ef")  # another data set: not to be read across
    keys = list(_legend(frame, table, look))
    figure.legend(
        handles=keys,
        loc="outside lower center",
        ncols=math.ceil(len(keys) / _LEGEND_LINES),
        handletextpad=0.5,
        columnspacing=1.4,
    )
    return figure


def method_looks(table: Table) -> dict[str, Look]:
    """A look for each method but the references'. By the table, not by the rows chosen: a method keeps its colour when
    other rows, or whole backbones, are left out."""
    references = {row.id for name in {row.backbone for row in table.rows} if (row := table.reference(name))}
    return looks(row.method for row in table.every_row if row.id not in references)


def _draw_reference(axes: Axes, reference: Row) -> None:
    """Lines at the accuracy of the backbone with nothing removed: the strongest source dashed, others dotted."""
    best = reference.best_published("top1_pct")
    if best is None:
        return
    axes.axhline(best.value, color=REFERENCE_COLOUR, linestyle=_DASHED, linewidth=1.0, zorder=1)
    drawn = [best.value]
    for value in reference.published:
        if value.metric == "top1_pct" and all(abs(value.value - other) > _SAME_LINE_POINTS for other in drawn):
            axes.axhline(value.value, color=REFERENCE_COLOUR, linestyle=_DOTTED, linewidth=1.0, zorder=1)
            drawn.append(value.value)


def _draw_published(axes: Axes, lines: list[dict[str, Any]], rows: Mapping[str, Row], look: Mapping[str, Look]) -> None:
    for method, style in look.items():
        points = [published_point(line, rows[line["row"]]) for line in lines if line["method"] == method]
        _draw_series(axes, [point for point in points if point], style.colour, style.marker, is_solid=False)


def _draw_measured(axes: Axes, lines: list[dict[str, Any]], look: Mapping[str, Look], prefix: str) -> None:
    series: dict[str, list[Point]] = {}
    for line in lines:
        accuracy, spread = line[f"{prefix}top1_best_pct"], line[f"{prefix}top1_std_pct"]
        if not math.isnan(accuracy):
            error = 0.0 if math.isnan(spread) else spread
            series.setdefault(line["method"], []).append(Point(counted_macs_g(line), accuracy, 0.0, error))
    for method, points in series.items():
        style = look.get(method, Look(REFERENCE_COLOUR, _REFERENCE_MARKER))
        if method not in look:
            axes.axhline(points[0].top1_pct, color=REFERENCE_COLOUR, linewidth=0.7, zorder=1)
        _draw_series(axes, points, style.colour, style.marker, is_solid=True)


def _draw_series(axes: Axes, points: list[Point], colour: str, marker: str, *, is_solid: bool) -> None:
    if not points:
        return
    ordered = sorted(points, key=lambda point: point.macs_g)
    macs = [point.macs_g for point in ordered]
    accuracies = [point.top1_pct for point in ordered]
    axes.plot(macs, accuracies, color=colour, linewidth=0.8, alpha=0.9 if is_solid else 0.45, zorder=2)
    axes.plot(
        macs,
        accuracies,
        linestyle="none",
        marker=marker,
        markersize=(7.5 if marker == _REFERENCE_MARKER else 4.2) if is_solid else 6.5,
        markerfacecolor=colour if is_solid else "white",
        markeredgecolor=colour,
        markeredgewidth=0.6 if is_solid else 1.2,
        zorder=5 if is_solid else 3,
    )
    _draw_errors(axes, ordered, colour, has_caps=is_solid)


def _draw_errors(axes: Axes, points: list[Point], colour: str, *, has_caps: bool) -> None:
    """Bars of those points alone whose error is known: one of no length costs as much to draw as any other."""
    sure = [point for point in points if point.macs_error_g or point.top1_error_pct]
    if sure:
        axes.errorbar(
            [point.macs_g for point in sure],
            [point.top1_pct for point in sure],
            xerr=[point.macs_error_g for point in sure] if any(point.macs_error_g for point in sure) else None,
            yerr=[point.top1_error_pct for point in sure] if any(point.top1_error_pct for point in sure) else None,
            fmt="none",
            ecolor=colour,
            elinewidth=0.9,
            capsize=1.5 if has_caps else 0,
            zorder=4,  # above the hollow markers: a digitised point's uncertainty is often smaller than its marker
        )


def _legend(frame: pd.DataFrame, table: Table, look: Mapping[str, Look]) -> Iterator[Line2D]:
    """The keys column by column: the methods, then what hollow, solid, dashed and dotted mean."""
    shown = [method for method in look if method in set(frame["method"])]
    for method in shown:
        yield _key(table.label(method), look[method].colour, look[method].marker, "white")
    for _ in range(-len(shown) % _LEGEND_LINES):
        yield Line2D([], [], linestyle="none", label=" ")
    yield _key("published", "#555555", "o", "white")
    yield _key("measured", "#555555", "o", "#555555")
    names = {row.method for backbone in set(frame["backbone"]) if (row := table.reference(backbone))}
    for name in sorted(names):
        yield Line2D(
            [],
            [],
            color=REFERENCE_COLOUR,
            marker=_REFERENCE_MARKER,
            linewidth=0.7,
            label=f"{table.label(name)}, measured",
        )
        yield Line2D([], [], color=REFERENCE_COLOUR, linestyle=_DASHED, label=f"{table.label(name)}, published")
        yield Line2D([], [], color=REFERENCE_COLOUR, linestyle=_DOTTED, label=f"{table.label(name)}, other source")


def _key(label: str, colour: str, marker: str, face: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face, markersize=5.5, label=label
    )
