"""Mask changes during training: churn, weights and units ever active, and the final density of each layer.

Each figure shows one backbone, with one row for each method and one seed for each row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report.figures.mask_history import MaskHistory, of_one_backbone
from repro.report.figures.style import (
    DASHED,
    QUIET,
    Look,
    add_legend,
    few_ticks,
    key,
    method_looks,
    new_figure,
    row_label,
    title,
    within,
)
from repro.tables.rows import Row, Table

_UNITS = ("neurons", "heads")
_MARKERS = 6
_BESIDE = 0.18
_HEIGHT_IN = 2.9
_NAME_IN = 0.135  # space that a layer's name takes on an axis
_DOTTED: Final = ":"


def draw_churn(table: Table, histories: Sequence[MaskHistory], scale: str, width_in: float) -> Figure | None:
    """Draw the share of active entries that are new in each mask update. `scale` is that of `trained_at`."""
    shown = of_one_backbone([one for one in histories if one.moved and any(one.values("churn") or ())])
    if not shown:
        return None
    figure, axes = _over_training(table, shown, scale, "churn of each mask update", "new active entries (%)", width_in)
    look = method_looks(table)
    for history in shown:
        _line(axes, history, history.values("churn") or [], look, start=1)
    axes.set_ylim(bottom=0)
    add_legend(figure, _keys(table, shown, look), "lower")
    return figure


def draw_ever_active(table: Table, histories: Sequence[MaskHistory], scale: str, width_in: float) -> Figure | None:
    """Draw the share of weights that are active, and of those that have ever been active."""
    shown = of_one_backbone(
        [one for one in histories if one.moved and one.values("ever_active") and one.values("density")]
    )
    if not shown:
        return None
    words = "weights active, and ever active"
    figure, axes = _over_training(table, shown, scale, words, "weights (%)", width_in)
    look = method_looks(table)
    for history in shown:
        ever, density = history.values("ever_active") or [], history.values("density") or []
        if ever != density and min(ever) < 1:
            _line(axes, history, ever, look)
        _line(axes, history, density, look, linestyle=_DOTTED)
    axes.set_ylim(0, 103)
    kinds = [Line2D([], [], color=QUIET, linestyle=_DOTTED, label="active")]
    if len(axes.lines) > len(shown):
        kinds.append(Line2D([], [], color=QUIET, label="ever active"))
    add_legend(figure, [*_keys(table, shown, look), *kinds], "lower")
    return figure


def draw_units(table: Table, histories: Sequence[MaskHistory], scale: str, width_in: float) -> Figure | None:
    """Draw the share of heads and neurons that have ever been active, for one row and for rows with other options."""
    structured = [one for one in histories if one.moved and one.values("neurons_ever_active")]
    if not structured:
        return None
    first = of_one_backbone(structured)[0].row
    shown = [one for one in structured if _without_options(one.row) == _without_options(first)]
    words = f"units ever active, {row_label(table, first)}"
    figure, axes = _over_training(table, shown, scale, words, "units (%)", width_in)
    look = method_looks(table)
    for history in shown:
        options = [override.rpartition("=") for override in history.row.own_overrides]
        names = [f"{key.rpartition('.')[2]} {value}" for key, _, value in options]
        for kind in _UNITS:
            values = history.values(f"{kind}_ever_active") or []
            axes.plot(
                [*history.progress, 1.0],
                [100 * value for value in [*values, values[-1]]],
                drawstyle="steps-post",
                color=QUIET if options else look[history.row.method].colour,
                linestyle="-" if kind == "neurons" else DASHED,
                label=", ".join([kind, *names]),
            )
    axes.set_ylim(0, 103)
    add_legend(figure, axes.lines, "lower")
    return figure


def draw_final_density(table: Table, histories: Sequence[MaskHistory], scale: str, width_in: float) -> Figure | None:
    """Draw the density of each layer after the last mask update."""
    shown = of_one_backbone([one for one in histories if one.moved and one.values("density") and one.layer_density])
    if not shown:
        return None
    figure = new_figure(width_in, _HEIGHT_IN)
    title(figure, f"{table.label(shown[0].row.backbone)}, {scale}: density of each layer at the end, one seed")
    axes = figure.subplots()
    look = method_looks(table)
    names: list[str] = []
    for place, history in enumerate(shown):
        density = history.layer_density
        names = names if len(names) >= len(density) else [short_layer(name) for name in density]
        axes.plot(
            # Side by side, because methods with similar densities would hide each other.
            [at + _BESIDE * (place - (len(shown) - 1) / 2) for at in range(len(density))],
            [100 * value for value in density.values()],
            color=look[history.row.method].colour,
            marker=look[history.row.method].marker,
            markersize=3,
            linestyle="none",  # layers have no order that a line could follow
        )
    step = -(-len(names) // int((width_in - 0.6) / _NAME_IN))
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90)
    axes.set_ylim(0, 103)
    axes.set_ylabel("active weights (%)")
    add_legend(figure, [key(row_label(table, one.row), look[one.row.method]) for one in shown], "lower")
    return figure


def short_layer(layer: str) -> str:
    """Abbreviate a layer name: `blocks.3.attn.qkv` to `3 qkv`, `blocks.3.mlp` to `3 mlp`."""
    found = re.fullmatch(r"blocks\.(\d+)\.(?:\w+\.)?(\w+)", layer)
    return f"{found[1]} {found[2]}" if found else layer.removesuffix(".proj")


def _over_training(
    table: Table, histories: Sequence[MaskHistory], scale: str, what: str, y: str, width_in: float
) -> tuple[Figure, Axes]:
    figure = new_figure(width_in, _HEIGHT_IN)
    title(figure, f"{table.label(histories[0].row.backbone)}, {scale}: {what}, one seed")
    axes = figure.subplots()
    axes.set_xlabel("fraction of training")
    axes.set_ylabel(within(y, _HEIGHT_IN - 1))
    axes.set_xlim(0, 1)
    few_ticks(axes)
    return figure, axes


def _keys(table: Table, histories: Sequence[MaskHistory], looks: Mapping[str, Look]) -> list[Line2D]:
    return [key(row_label(table, history.row), looks[history.row.method], linestyle="-") for history in histories]


def _without_options(row: Row) -> tuple[str, str, float, float]:
    return row.backbone, row.method, row.arch_sparsity_pct, row.data_sparsity_pct


def _line(
    axes: Axes,
    history: MaskHistory,
    values: Sequence[float],
    looks: Mapping[str, Look],
    *,
    start: int = 0,
    linestyle: str = "-",
) -> None:
    progress = list(history.progress[start:])
    percents = [100 * value for value in values[start:]]
    if not start:  # the mask stays constant until the end of training
        progress.append(1.0)
        percents.append(percents[-1])
    axes.plot(
        progress,
        percents,
        color=looks[history.row.method].colour,
        linestyle=linestyle,
        marker=looks[history.row.method].marker,
        markersize=4,
        markevery=_every(axes, len(progress)),
    )


def _every(axes: Axes, count: int) -> tuple[int, int]:
    """Return `markevery` for a few markers per line, offset from earlier lines, because some lines overlap."""
    step = max(1, count // _MARKERS)
    return min(len(axes.lines) * step // _MARKERS, count - 1), step
