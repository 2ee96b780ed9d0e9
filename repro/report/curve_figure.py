"""Training curves: a line of panels per backbone, one for each method that has several levels, one for all others."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from repro.report.evidence import Evidence
from repro.report.style import REFERENCE_COLOUR, Look
from repro.rows import Row, Table
from repro.runs.record import Record

_DASHED = (0, (4, 2))
_LIGHTEST, _DARKEST = 0.62, 0.35  # how much of white, and of black, the ends of a ramp of levels have
_LABEL_GAP = 0.075  # of a panel's height: nearer labels would lie upon each other
_LABELS_BESIDE = 0.05  # of a panel's width
_GAP_IN, _END_GAP_IN = 0.22, 0.75  # beside each panel, for the labels; beside the last one, which names methods
_MOST_TICKS = 4
_CHARACTER_IN = 0.066  # of a label, on average and with some to spare
_BELOW_IN = 0.3  # the height that the epochs' label takes
_EPOCHS = "epoch; at the end of each line: percent removed (of tokens, of weights)"


@dataclass(frozen=True)
class Curve:
    """The curve of one row: what its label says, how it looks, and mean and deviation by epoch."""

    row: Row
    label: str
    colour: tuple[float, float, float]
    marker: str
    points: pd.DataFrame


def draw_curves(table: Table, every: Sequence[Evidence], looks: Mapping[str, Look], accuracy: str) -> Figure | None:
    """Test accuracy after each epoch, a line a row: the mean over seeds, its spread as a band.

    Levels of one method go from dark to light as more is removed, each named where its line ends; the row with nothing
    removed is dashed in every panel. None where no finished run has two evaluations.

    Args:
        accuracy: what the accuracies are, as the vertical axis says it (`accuracy_axis`).
    """
    found = [(evidence.row, points) for evidence in every if len(points := mean_curve(evidence)) > 1]
    if not found:
        return None
    references = {backbone: table.reference(backbone) for backbone in dict.fromkeys(row.backbone for row, _ in found)}
    dense = {row.backbone: points for row, points in found if row == references[row.backbone]}
    rows = [(row, points) for row, points in found if row != references[row.backbone]]
    columns = _columns([row for row, _ in rows])
    width_in = 2.3 * len(columns) + 0.5 + _END_GAP_IN
    engine = ConstrainedLayoutEngine(w_pad=_GAP_IN, rect=(0, 0, 1 - _END_GAP_IN / width_in, 1))
    figure = Figure(figsize=(width_in, 1.75 * len(references) + 0.8), layout=engine)
    grid = figure.subplots(len(references), len(columns), squeeze=False, sharex=True, sharey=True)
    for line, backbone in zip(grid, references, strict=True):
        for axes, (title, methods) in zip(line, columns.items(), strict=True):
            here = [(row, points) for row, points in rows if row.backbone == backbone and row.method in methods]
            curves = _curves(table, here, looks, by_level=len(methods) == 1)
            axes.set_visible(bool(curves) or not rows)
            _draw(axes, curves, dense.get(backbone), table.label("dense"))
            axes.set_title(f"{table.label(backbone)}, {table.label(title)}", fontsize=7.5)
    for axes in grid.flat:
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
        _label_ends(axes)
    for column in grid.T:  # the lowest panel that is shown has the epochs
        for axes in [axes for axes in column if axes.get_visible()][-1:]:
            axes.tick_params(labelbottom=True)
    figure.supylabel(_within(accuracy, figure.get_figheight() - _BELOW_IN), fontsize=8, multialignment="center")
    figure.supxlabel(_within(_EPOCHS, figure.get_figwidth()), fontsize=8)
    return figure


def _within(label: str, length_in: float) -> str:
    """A label in lines that are no longer than the side of the figure at which it stands."""
    room = int(length_in / _CHARACTER_IN)
    return "\n".join(textwrap.fill(line, room) for line in label.splitlines())


def mean_curve(evidence: Evidence) -> pd.DataFrame:
    """Mean and sample standard deviation of the accuracies (percent) of a row's finished seeds, by epoch."""
    points = [
        point
        for run in evidence.runs.values()
        if run.path is not None and run.state == "done"
        for point in zip(*accuracy_curve(run.path), strict=True)
    ]
    return pd.DataFrame(points, columns=["epoch", "top1_pct"]).groupby("epoch")["top1_pct"].agg(["mean", "std"])


def accuracy_curve(path: Path) -> tuple[list[float], list[float]]:
    """Epochs and accuracies (percent) of a record's evaluations."""
    entries = list(Record(path).metrics("eval"))
    return [float(entry["epoch"]) for entry in entries], [float(entry["top1_pct"]) for entry in entries]


def levels(row: Row) -> str:
    """What a row removes, in percent: of the tokens where it does, then of the weights."""
    return ", ".join(f"{pct:g}" for pct in (row.data_sparsity_pct, row.arch_sparsity_pct) if pct)


def _columns(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Methods by column: its own for each that has several rows on some backbone, the last for all others."""
    methods = list(dict.fromkeys(row.method for row in rows))
    counts = {
        method: max(sum(r.method == method and r.backbone == b for r in rows) for b in {r.backbone for r in rows})
        for method in methods
    }
    alone = tuple(method for method in methods if counts[method] == 1)
    columns: dict[str, tuple[str, ...]] = {method: (method,) for method in methods if counts[method] > 1}
    return columns | ({"one level each" if columns else "all methods": alone} if alone or not columns else {})


def _curves(
    table: Table, rows: Sequence[tuple[Row, pd.DataFrame]], looks: Mapping[str, Look], *, by_level: bool
) -> list[Curve]:
    ordered = sorted(rows, key=lambda one: (one[0].data_sparsity_pct, one[0].arch_sparsity_pct)) if by_level else rows
    curves = []
    for place, (row, points) in enumerate(ordered):
        look = looks[row.method]
        name = levels(row) if by_level else f"{table.label(row.method)} {levels(row)}"
        has_ramp = by_level and len(ordered) > 1
        colour = shade(look.colour, place / (len(ordered) - 1)) if has_ramp else to_rgb(look.colour)
        curves.append(Curve(row, name, colour, look.marker, points))
    return curves


def shade(colour: str, share: float) -> tuple[float, float, float]:
    """A colour's own ramp: at 0 darker, at 1 lighter than itself, ever lighter between, in colour and in grey."""
    own = np.array(to_rgb(colour))
    dark, light = own * (1 - _DARKEST), own + (1 - own) * _LIGHTEST
    red, green, blue = dark + (light - dark) * share
    return float(red), float(green), float(blue)


def _draw(axes: Axes, curves: Sequence[Curve], dense: pd.DataFrame | None, dense_label: str) -> None:
    if dense is not None:
        axes.plot(dense.index, dense["mean"], color=REFERENCE_COLOUR, linestyle=_DASHED, label=dense_label)
    for curve in curves:
        points = curve.points
        axes.plot(
            points.index,
            points["mean"],
            color=curve.colour,
            marker=curve.marker,
            markersize=3,
            markevery=max(1, len(points) // 6),
            linewidth=1.2,
            label=curve.label,
        )
        if points["std"].notna().any():
            low, high = points["mean"] - points["std"], points["mean"] + points["std"]
            axes.fill_between(points.index, low, high, color=curve.colour, alpha=0.15, linewidth=0)


def _label_ends(axes: Axes) -> None:
    """Name each line where it ends, in its colour made dark enough to read, pushed apart where ends are near."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    at = right + _LABELS_BESIDE * (right - left)
    lasts = [tuple(np.asarray(line.get_xydata())[-1].tolist()) for line in axes.lines]
    order = sorted(range(len(lasts)), key=lambda place: (lasts[place][1], place))
    heights = apart([lasts[place][1] for place in order], _LABEL_GAP * (top - bottom), top)
    colours = [tuple(0.75 * part for part in to_rgb(axes.lines[place].get_color())) for place in order]
    leaders = [[lasts[place], (at, height)] for place, height in zip(order, heights, strict=True)]
    lines = axes.add_collection(LineCollection(leaders, colors=colours, linewidths=0.4, clip_on=False), autolim=False)
    lines.set_in_layout(False)  # the gap between panels is made for these: what each takes need not be asked
    for place, height, colour in zip(order, heights, colours, strict=True):
        label = str(axes.lines[place].get_label())
        axes.text(at, height, f" {label}", va="center", fontsize=6, color=colour).set_in_layout(False)


def apart(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Rising heights moved as little as it takes for each to be a gap above the one before, none above the top."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    ceiling = top
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    return moved
