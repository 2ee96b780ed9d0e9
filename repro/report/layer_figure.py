"""How the density of each layer moved while training: a map per method, layers down, the training across."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro.report.histories import MaskHistory
from repro.report.mask_figure import label_of, of_one_backbone, short_layer
from repro.rows import Table

_COLUMNS = 128  # of the map: each is the density at that share of the training
_MOST_NAMES = 9


def draw_layers(table: Table, histories: Sequence[MaskHistory], scale: str) -> Figure | None:
    """The maps of one backbone, one row for each method; None where no run has moved a mask.

    `scale` is what the models were trained at, in words (`trained_at`).
    """
    moved = [history for history in histories if history.moved and not history.variant and history.layer_density]
    if not moved:
        return None
    shown = of_one_backbone(moved)
    across = min(len(shown), 3)
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(3.0 * across + 0.8, 2.3 * down + 0.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    picture = None
    for axes, history in zip(grid.flat, shown, strict=False):
        names = list(history.layer_density)
        picture = axes.imshow(
            layer_map(history),
            aspect="auto",
            extent=(0, 1, len(names) - 0.5, -0.5),
            cmap="cividis",  # the same to colour-blind eyes, and rises evenly in grey
            vmin=0,
            vmax=100,
            interpolation="none",
        )
        step = math.ceil(len(names) / _MOST_NAMES)
        axes.set_yticks(range(0, len(names), step), [short_layer(name) for name in names[::step]], fontsize=6)
        axes.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_title(label_of(table, history))
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    assert picture is not None
    figure.colorbar(picture, ax=grid, label="active weights or units (%)", shrink=0.8)
    figure.supxlabel("share of the training done", fontsize=8)
    figure.suptitle(f"{table.label(shown[0].row.backbone)}, {scale}: density of each layer, one seed", fontsize=9)
    return figure


def layer_map(history: MaskHistory) -> np.ndarray:
    """Density in percent, (layers, columns): each column is what stood at that share of the training."""
    columns = (np.arange(_COLUMNS) + 0.5) / _COLUMNS
    place = np.clip(np.searchsorted(history.progress, columns, side="right") - 1, 0, None)
    values = np.array([[entry[f"density/{name}"] for entry in history.entries] for name in history.layer_density])
    return np.asarray(100 * values[:, place])
