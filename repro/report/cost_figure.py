"""What a row saves against what it does to accuracy: parameters, FLOPs and time, beside the dense model's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report.local_data import local_title
from repro.report.style import REFERENCE_COLOUR, Look, few_ticks
from repro.rows import Table

_LABEL_CHARACTERS = 36  # along an axis of this figure
_SMALLEST, _STEP = 3.0, 2.2  # marker sizes in points: one for each backbone, the larger model the larger


def draw_cost(frame: pd.DataFrame, table: Table, look: Mapping[str, Look]) -> Figure | None:
    """Three panels, one for each kind of saving in percent of the dense model of the same backbone.

    Up is the gain over that model in points, the mean over seeds of the paired differences, its spread as error bar;
    None where no row has one. Time is in its panel only for rows that `repro bench time` has measured.
    """
    prefix = "local_" if bool((frame["local_data"] != "").any()) else ""
    shown = frame.assign(params_saving_pct=_params_saving(frame, table))
    shown = shown[shown[f"{prefix}gain_pct"].notna()]
    if shown.empty:
        return None
    panels = (
        ("params_saving_pct", "parameters saved (%)"),
        ("flops_saving_pct", "FLOPs saved (%), table convention"),
        ("time_saving_pct", "time saved (%), as measured here"),
    )
    figure = Figure(figsize=(9.0, 3.5), layout="constrained")
    sizes = {name: _SMALLEST + _STEP * place for place, name in enumerate(dict.fromkeys(frame["backbone"]))}
    for axes, (column, label) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        _draw(axes, shown[shown[column].notna()], column, prefix, look, sizes)
        axes.set_xlabel(label)
        axes.margins(0.08, 0.1)
        few_ticks(axes)
    # A label is no longer than its axis: what it says last is that these are not the published images.
    where = textwrap.fill(local_title(frame, table), _LABEL_CHARACTERS) if prefix else ""
    figure.axes[0].set_ylabel(f"gain over dense (points),\n{where}" if where else "top-1 gain over dense (points)")
    keys = [
        _key(table.label(method), style.colour, style.marker, 5)
        for method, style in look.items()
        if method in set(shown["method"])
    ]
    keys += [_key(table.label(name), "#555555", "o", size) for name, size in sizes.items()]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 6), columnspacing=1.4)
    return figure


def _params_saving(frame: pd.DataFrame, table: Table) -> pd.Series[float]:
    """Parameters saved in percent; NaN where the dense row of the backbone is not in the frame."""
    dense = {}
    for backbone in dict.fromkeys(frame["backbone"]):
        reference = table.reference(str(backbone))
        found = frame.loc[frame["row"] == (reference.id if reference else None), "params_m"]
        dense[backbone] = float(found.iloc[0]) if len(found) else np.nan
    return 100 * (1 - frame["params_m"] / frame["backbone"].map(dense))


def _draw(
    axes: Axes, lines: pd.DataFrame, column: str, prefix: str, look: Mapping[str, Look], sizes: Mapping[str, float]
) -> None:
    axes.axhline(0, color=REFERENCE_COLOUR, linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
    for (method, backbone), same in lines.groupby(["method", "backbone"], sort=False):
        style, ordered = look[str(method)], same.sort_values(column)
        axes.errorbar(
            ordered[column],
            ordered[f"{prefix}gain_pct"],
            yerr=ordered[f"{prefix}gain_std_pct"],  # one seed has no spread, and no bar
            color=style.colour,
            marker=style.marker,
            markersize=sizes[str(backbone)],
            markeredgecolor="white",
            markeredgewidth=0.4,
            linewidth=0.6,
            elinewidth=0.8,
            capsize=2,
        )
    if lines.empty:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", va="center")


def _key(label: str, colour: str, marker: str, size: float) -> Line2D:
    return Line2D([], [], linestyle="none", color=colour, marker=marker, markersize=size, label=label)
