"""Heads by block and patches by stage that are left in finished models."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from repro.errors import count_of
from repro.report.evidence import Evidence
from repro.report.figures.pending import extracts
from repro.report.figures.style import (
    COLOURS,
    GRID,
    MOST_HEIGHT_IN,
    PAPER,
    SMALLEST_PT,
    label_axes,
    levels,
    n_across,
    new_figure,
    panels,
    row_label,
    title,
    within,
)
from repro.report.local_data import trained_at
from repro.runs.record import Record
from repro.tables.rows import Row, Table

_KEPT = COLOURS[0]
_DROPPED_SHADE = (0.84, 0.37, 0.0, 0.62)
_MAPS_ON_PAGE, _IMAGES_ON_PAGE = 5, 8
_MOST_STRIPS = 4  # maximum number of strips of kept patches, one for each row
_MAP_IN, _AROUND_IN = 0.7, 0.55
_LINE_IN = 1.25 * SMALLEST_PT / 72


def draw_heads(table: Table, every: Sequence[Evidence], width_in: float) -> Figure | None:
    """Draw a map for each row that removes heads: blocks vertically, heads horizontally, dark if a head is left."""
    maps = []
    for evidence, _, found in extracts(every, Record.anatomy):
        heads = np.array(found["heads"], dtype=bool)
        if not heads.all():
            maps.append((evidence, heads))
    if not maps:
        return None
    across = min(n_across(width_in, _MAPS_ON_PAGE), len(maps))
    names = [within(_map_title(table, evidence.row), width_in / across - 0.25, SMALLEST_PT) for evidence, _ in maps]
    map_in = _MAP_IN + _LINE_IN * max(name.count("\n") + 1 for name in names)
    most = across * int((MOST_HEIGHT_IN - _AROUND_IN) / map_in)
    part = f", {most} of {count_of(len(maps), 'row')}" if len(maps) > most else ""
    maps, names = maps[:most], names[:most]
    figure, grid = panels(width_in, len(maps), across, map_in, _AROUND_IN, same_y=False)
    for axes, name, (_, left) in zip(grid, names, maps, strict=True):
        blocks, count = left.shape
        edges = (np.arange(count + 1) - 0.5, np.arange(blocks + 1) - 0.5)
        colours = ListedColormap([GRID, _KEPT])  # drawn as patches, whose colours the dark variant can replace
        axes.pcolormesh(*edges, left, cmap=colours, vmin=0, vmax=1, edgecolors=PAPER, linewidth=1.0)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=1)
        axes.set_xticks([0, count - 1], ["0", str(count - 1)])  # counted as in the names of timm's layers
        axes.set_yticks([0, blocks - 1], ["0", str(blocks - 1)])
        axes.set_title(name, fontsize=SMALLEST_PT)
    title(figure, f"Heads left (dark), {trained_at(evidence for evidence, _ in maps)}, one seed{part}")
    label_axes(figure, "head", "block")
    return figure


def draw_tokens(table: Table, every: Sequence[Evidence], width_in: float) -> Figure | None:
    """Draw test images for each row that drops patches: the image, then each stage, with dropped patches hatched."""
    extracted = extracts(every, Record.anatomy)
    strips = [(evidence, found) for evidence, _, found in extracted if "kept" in found][:_MOST_STRIPS]
    if not strips:
        return None
    most = n_across(width_in, _IMAGES_ON_PAGE)
    # An image takes one panel plus one for each stage; a strip has as many images as fit, and at least one.
    wide = [max(1, most // (1 + len(found["kept"]))) * (1 + len(found["kept"])) for _, found in strips]
    heads = [within(_strip_title(table, *strip), width_in - 0.2, SMALLEST_PT) for strip in strips]
    heights = [width_in / count + (head.count("\n") + 2.5) * _LINE_IN for count, head in zip(wide, heads, strict=True)]
    figure = new_figure(width_in, sum(heights) + 0.3)
    title(figure, f"Patches kept, {trained_at(evidence for evidence, _ in strips)}, one seed")
    parts = figure.subfigures(len(strips), height_ratios=heights, squeeze=False)[:, 0]
    for part, head, count, (_, found) in zip(parts, heads, wide, strips, strict=True):
        part.suptitle(head, fontsize=SMALLEST_PT)
        stages = len(found["kept"])
        images = min(count // (1 + stages), len(found["images"]))
        places = iter(part.subplots(1, images * (1 + stages), squeeze=False)[0])
        for index in range(images):
            _draw_patches(next(places), "image", found["images"][index], (), found["patch_size"])
            for stage, kept in enumerate(found["kept"], start=1):
                words = "kept" if stages == 1 else f"stage {stage}"
                _draw_patches(next(places), words, found["images"][index], kept[index], found["patch_size"])
    return figure


def _map_title(table: Table, row: Row) -> str:
    return "\n".join(filter(None, [table.label(row.backbone), table.label(row.method), *levels(row).split(", ")]))


def _strip_title(table: Table, evidence: Evidence, found: dict[str, list[list[list[bool]]]]) -> str:
    """Return the row's label and the share of patches that each stage dropped: whole ones, so 5 % of 16 are one."""
    dropped = ", ".join(f"{100 * (1 - np.mean(kept)):.3g}" for kept in found["kept"])
    row = evidence.row
    return f"{table.label(row.backbone)}, {row_label(table, row)}: {dropped} % of these patches dropped"


def _draw_patches(axes: Axes, head: str, image: Sequence[Sequence[float]], kept: Sequence[bool], size: int) -> None:
    """Draw an image. If `kept` is given, dropped patches are hatched."""
    pixels = np.array(image)
    side = pixels.shape[0] // size
    axes.set_axis_off()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="none")
    axes.set_title(head, fontsize=SMALLEST_PT, pad=2)
    for place in np.flatnonzero(~np.array(kept, dtype=bool)):
        corner = ((place % side) * size - 0.5, (place // side) * size - 0.5)
        axes.add_patch(
            mpl.patches.Rectangle(corner, size, size, facecolor=_DROPPED_SHADE, edgecolor="white", hatch="///")
        )
