"""Training curves of one backbone: a panel for each method with several levels, and one for all other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from repro.report.cells import Results
from repro.report.evidence import Evidence
from repro.report.figures.style import (
    DASHED,
    INK,
    SMALLEST_PT,
    Look,
    at_distance,
    few_ticks,
    label_axes,
    method_looks,
    n_across,
    panels,
    title,
    within,
)
from repro.report.local_data import accuracy_axis
from repro.runs.record import Record
from repro.tables.rows import Row, Table

_LIGHTEST, _DARKEST = 0.55, 0.35  # amount of white and black at the two ends of a colour ramp
_ON_PAGE = 2
_PANEL_IN, _AROUND_IN = 1.75, 0.75
_LABEL_GAP = 1.25 * SMALLEST_PT / 72 / (_PANEL_IN - 0.4)  # fraction of a panel's height; closer labels would overlap
_LEADER = 0.06  # distance from the end of a line to its label, as a fraction of the range of epochs
_CHARACTER_IN = 0.62 * SMALLEST_PT / 72
_AXES_SHARE = 0.8  # fraction of a panel's width; the rest is for tick labels


@dataclass(frozen=True)
class Curve:
    """The curve of one row: label, style, and mean and standard deviation by epoch."""

    label: str
    colour: tuple[float, float, float]
    marker: str
    points: pd.DataFrame
    is_reference: bool = False


def backbones_with_curves(results: Results) -> list[str]:
    """Return the backbones with a finished run."""
    return list(dict.fromkeys(row.row.backbone for row in results.rows if row.evidence.n_done))


def draw_curves(results: Results, backbone: str, width_in: float) -> Figure | None:
    """Draw test accuracy after each epoch, a line per row: the mean over seeds, with a band of one standard deviation.

    Levels of one method go from dark to light as more is removed, and are labelled at the ends of their lines; the
    dense row is dashed in every panel. All panels begin at the same epoch. None if no finished run of the backbone has
    two evaluations.
    """
    table, looks = results.table, method_looks(results.table)
    own = [row.evidence for row in results.rows if row.row.backbone == backbone]
    found = [(evidence.row, points) for evidence in own if len(points := mean_curve(evidence)) > 1]
    if not found:
        return None
    reference = table.reference(backbone)
    dense = [
        Curve(table.label(row.method), to_rgb(INK), "", points, is_reference=True)
        for row, points in found
        if row == reference
    ]
    rows = [(row, points) for row, points in found if row != reference]
    shown = _panels(table, rows, looks) or {table.label(backbone): []}
    across = min(n_across(width_in, _ON_PAGE), len(shown))
    figure, grid = panels(width_in, len(shown), across, _PANEL_IN, _AROUND_IN)
    title(figure, table.label(backbone))
    axes_in = width_in / across * _AXES_SHARE
    for axes, (head, curves) in zip(grid, shown.items(), strict=True):
        axes.set_title(within(head, axes_in, 8))
        _draw(axes, [*dense, *curves])
        few_ticks(axes, whole=True)
    epochs = [epoch for curves in (dense, *shown.values()) for curve in curves for epoch in curve.points.index]
    for axes, curves in zip(grid, shown.values(), strict=True):
        every = [*dense, *curves]
        longest = max(len(curve.label) for curve in every)
        _label_ends(axes, every, (min(epochs), max(epochs)), longest * _CHARACTER_IN / axes_in)
    label_axes(figure, "epoch", accuracy_axis(results.of_backbones([backbone]), "each epoch"))
    return figure


def mean_curve(evidence: Evidence) -> pd.DataFrame:
    """Return mean and sample standard deviation of accuracy (percent) over a row's finished seeds, by epoch.

    Epochs include those of the training that gave a run its initial weights.
    """
    points = [point for record in evidence.finished.values() for point in accuracy_curve(record)]
    frame = pd.DataFrame(points, columns=["epoch", "top1_pct"])
    frame["epoch"] += evidence.config.earlier_epochs
    return frame.groupby("epoch")["top1_pct"].agg(["mean", "std"])


def accuracy_curve(record: Record) -> list[tuple[float, float]]:
    """Return epoch of the run's own training and accuracy (percent) of each evaluation."""
    return [(float(entry["epoch"]), float(entry["top1_pct"])) for entry in record.metrics("eval")]


def _panels(
    table: Table, rows: Sequence[tuple[Row, pd.DataFrame]], looks: Mapping[str, Look]
) -> dict[str, list[Curve]]:
    """Return curves by panel title: one panel for each method with several rows, and a last one for all others."""
    methods = list(dict.fromkeys(row.method for row, _ in rows))
    by_method = {method: [one for one in rows if one[0].method == method] for method in methods}
    several = {method: own for method, own in by_method.items() if len(own) > 1}
    shown = {}
    for method, own in several.items():
        own.sort(key=lambda one: (one[0].data_sparsity_pct, one[0].arch_sparsity_pct))
        what, labels = _what_differs([row for row, _ in own])
        shown[f"{table.label(method)}{what}"] = [
            Curve(label, shade(looks[method].colour, place / (len(own) - 1)), looks[method].marker, points)
            for place, (label, (_, points)) in enumerate(zip(labels, own, strict=True))
        ]
    others = [own[0] for method, own in by_method.items() if method not in several]
    if others:
        what, levels = _what_differs([row for row, _ in others])
        curves = [
            Curve(
                f"{table.label(row.method)}{f' {level}' if level else ''}",
                to_rgb(looks[row.method].colour),
                looks[row.method].marker,
                points,
            )
            for (row, points), level in zip(others, levels, strict=True)
        ]
        shown[f"{'other methods' if several else 'all methods'}{what}"] = curves
    return shown


def _what_differs(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """Return the suffix of a panel's title, and the label of each row, which says how the row differs."""
    weights = [f"{row.arch_sparsity_pct:g} %" if row.arch_sparsity_pct else "" for row in rows]
    tokens = [f"{row.data_sparsity_pct:g} %" if row.data_sparsity_pct else "" for row in rows]
    if not any(tokens):
        return (" by sparsity" if any(weights) else ""), weights
    if len(set(weights)) == 1:
        return f", {weights[0]} sparsity, by tokens dropped" if weights[0] else " by tokens dropped", tokens
    both = [", ".join(filter(None, one)) for one in zip(weights, tokens, strict=True)]
    return " by sparsity, tokens dropped", both


def shade(colour: str, share: float) -> tuple[float, float, float]:
    """Return a shade of a colour, from darker at 0 to lighter at 1, increasing monotonically in lightness."""
    own = np.array(to_rgb(colour))
    dark, light = own * (1 - _DARKEST), own + (1 - own) * _LIGHTEST
    red, green, blue = dark + (light - dark) * share
    return float(red), float(green), float(blue)


def _draw(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        points = curve.points
        axes.plot(
            points.index,
            points["mean"],
            color=curve.colour,
            linestyle=DASHED if curve.is_reference else "-",
            marker=curve.marker or None,
            markersize=3,
            markevery=max(1, len(points) // 6),
            label=curve.label,
        )
        if points["std"].notna().any():
            low, high = points["mean"] - points["std"], points["mean"] + points["std"]
            axes.fill_between(points.index, low, high, color=curve.colour, alpha=0.15, linewidth=0)


def _label_ends(axes: Axes, curves: Sequence[Curve], epochs: tuple[float, float], share: float) -> None:
    """Label each line at its end, in reserved space of the panel.

    `epochs` are the first and the last of all panels, `share` is the width of the panel's labels.
    """
    first, last = epochs
    length = last - first
    bottom, top = axes.get_ylim()
    axes.set_xlim(first - 0.03 * length, first + length * (1 + _LEADER) / (1 - min(share, 0.6)))
    at = last + _LEADER * length
    curves = sorted(curves, key=lambda curve: curve.points["mean"].iloc[-1])
    ends, gap = [float(curve.points["mean"].iloc[-1]) for curve in curves], _LABEL_GAP * (top - bottom)
    heights = at_distance(ends, gap, bottom + gap / 2, top - gap / 2)
    leaders, colours = [], []
    for curve, end, height in zip(curves, ends, heights, strict=True):
        colours.append(tuple(0.6 * part for part in curve.colour))  # dark enough to read
        leaders.append([(float(curve.points.index[-1]), end), (at, height)])
        axes.text(at, height, f" {curve.label}", va="center", fontsize=SMALLEST_PT, color=colours[-1])
    # Dotted, so that the leader of a curve that ends early does not look like its continuation.
    axes.add_collection(LineCollection(leaders, colors=colours, linewidths=0.6, linestyles=":"), autolim=False)
    axes.set_xticks([tick for tick in axes.get_xticks() if first <= tick <= last])
