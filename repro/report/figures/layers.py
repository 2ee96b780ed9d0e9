"""The density of each layer during training: a map per method, with layers vertically and time horizontally."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro.report.figures.mask_history import MaskHistory, of_one_backbone
from repro.report.figures.masks import short_layer
from repro.report.figures.style import MOST_HEIGHT_IN, n_across, panels, row_label, title, within
from repro.tables.rows import Table

_COLUMNS = 128  # columns of the map, each with the density at that fraction of training
_ON_PAGE = 2
_PANEL_IN, _AROUND_IN = 1.55, 1.1
_HEAD_IN, _NAME_IN = 0.55, 0.12  # height of a panel's title and tick labels, and of a layer's name


def draw_layers(table: Table, histories: Sequence[MaskHistory], scale: str, width_in: float) -> Figure | None:
    """Draw the maps of one backbone, for one row of each method; None if no run has changed a mask.

    `scale` is the scale at which the models were trained, as text (`trained_at`).
    """
    moved = [history for history in histories if history.moved and history.layer_density]
    if not moved:
        return None
    shown = of_one_backbone(moved)
    across = min(n_across(width_in, _ON_PAGE), len(shown))
    down = math.ceil(len(shown) / across)
    # As high as all names take, unless the figure would be higher than a page; then every second or third is named.
    room_in = (MOST_HEIGHT_IN - _AROUND_IN) / down
    all_in = _HEAD_IN + _NAME_IN * (max(len(history.layer_density) for history in shown) + 0.5)
    panel_in = max(_PANEL_IN, all_in) if all_in <= room_in else min(_PANEL_IN, room_in)
    most_names = max(1, int((panel_in - _HEAD_IN) / _NAME_IN))
    # Each panel names its own layers, because the prunable layers differ between methods.
    figure, grid = panels(width_in, len(shown), across, panel_in, _AROUND_IN, same_y=False, same_width=True)
    picture = None
    for place, (axes, history) in enumerate(zip(grid, shown, strict=True), start=1):
        names = list(history.layer_density)
        picture = axes.imshow(
            layer_map(history),
            aspect="auto",
            extent=(0, 1, len(names) - 0.5, -0.5),
            cmap="cividis",  # safe for colour-blind readers and perceptually uniform in greyscale
            vmin=0,
            vmax=100,
            interpolation="none",
        )
        step = math.ceil(len(names) / most_names)
        axes.set_yticks(range(0, len(names), step), [short_layer(name) for name in names[::step]])
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(2))
        if place + across > len(shown):  # the last panel of a column
            axes.set_xlabel("fraction of training")
        axes.set_title(within(row_label(table, history.row), width_in / across - 0.6, 8))
    assert picture is not None
    if len(shown) % across:  # the last place is free
        places = grid[0].get_gridspec()
        assert places is not None
        bar = figure.add_subplot(places[-1, -1].subgridspec(5, 1)[2])
        colours = figure.colorbar(picture, cax=bar, orientation="horizontal")
    else:
        colours = figure.colorbar(picture, ax=grid, location="bottom", aspect=40, shrink=0.8)
    colours.set_label("active weights or units (%)")
    figure.supylabel("layer (block and matrix)")
    title(figure, f"{table.label(shown[0].row.backbone)}, {scale}: active weights or units of each layer (%), one seed")
    return figure


def layer_map(history: MaskHistory) -> np.ndarray:
    """Return density in percent, (layers, columns): each column is the state at that fraction of training."""
    columns = (np.arange(_COLUMNS) + 0.5) / _COLUMNS
    place = np.clip(np.searchsorted(history.progress, columns, side="right") - 1, 0, None)
    values = np.array([[entry[f"density/{name}"] for entry in history.entries] for name in history.layer_density])
    return np.asarray(100 * values[:, place])
