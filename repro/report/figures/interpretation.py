"""Where a model looks: images, the patches that each stage keeps, and heat maps with the true object outlined."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.errors import UserError, count_of
from repro.report.evidence import Evidence
from repro.report.figures.pending import extracts
from repro.report.figures.style import PAGE_IN, SMALLEST_PT, new_figure, row_label, title
from repro.report.local_data import trained_at
from repro.runs.record import Record
from repro.tables.rows import Table

_IMAGES = 4
_MAPS = {"token_scores": "selector's\nscores", "class_attention": "class\nattention", "rollout": "attention\nrollout"}
_MOST_PANEL_IN, _HEADS_IN = 1.2, 0.85
_OUTLINE = "#ffffff"
_DROPPED_SHADE = 0.22  # brightness of dropped patches, relative to the image


def draw_interpretation(table: Table, every: Sequence[Evidence], width_in: float) -> Figure | None:
    """Draw four test images for the first of the rows with the most stages: kept patches and heat maps of each image.

    In page width, each image is a row of panels; in column width, each image is a column.
    """
    found = list(extracts(every, Record.interpretation))
    if not found:
        return None
    evidence, record, measured = max(found, key=lambda one: len(one[2]["stages"]))
    shown = stored_pictures(record.path / "interpretation.npz")
    names = [name for name in _MAPS if f"map_{name}" in shown]
    stages = shown["kept"].shape[1]
    heads = [
        "\n".join(filter(None, (head, below)))
        for head, below in zip(
            ["image", *(f"stage {stage + 1}" for stage in range(stages)), *(_MAPS[name] for name in names)],
            _figures(measured, names),
            strict=True,
        )
    ]
    images, is_page = len(shown["images"]), width_in >= PAGE_IN
    lines, across = (images, len(heads)) if is_page else (len(heads), images)
    panel_in = min(width_in / across, _MOST_PANEL_IN) if is_page else (width_in - _HEADS_IN) / across
    figure = new_figure(width_in, panel_in * lines + (0.9 if is_page else 0.5))
    grid = figure.subplots(lines, across, squeeze=False)
    for line, index in zip(grid if is_page else grid.T, range(images), strict=True):
        image = shown["images"][index]
        mask = shown["masks"][index] if "masks" in shown else None
        pictures = [image, *(_without(image, kept) for kept in shown["kept"][index])]
        for axes, picture in zip(line, pictures, strict=False):
            axes.imshow(picture, interpolation="nearest")
        for axes, name in zip(line[1 + stages :], names, strict=True):
            axes.imshow(shown[f"map_{name}"][index].astype(float), cmap="magma", interpolation="nearest")
            _outline(axes, mask)
        _outline(line[0], mask)
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for axes, head in zip(grid[0] if is_page else grid[:, 0], heads, strict=True):
        if is_page:
            axes.set_title(head, fontsize=SMALLEST_PT)
        else:
            axes.set_ylabel(head, fontsize=SMALLEST_PT, rotation=0, ha="right", va="center", multialignment="left")
    row = evidence.row
    where = f"{table.label(row.backbone)}, {row_label(table, row)}, {trained_at([evidence])}"
    title(figure, f"{where}: {table.label(measured['data'])}, {count_of(measured['images'], 'image')}")
    return figure


def stored_pictures(file: Path) -> dict[str, Any]:
    """Return the arrays of the first images. Raises `UserError` for a missing or damaged file."""
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            found = {name: stored[name][:_IMAGES] for name in stored.files}
        if lost := [name for name in ("images", "kept") if name not in found]:
            raise ValueError(f"no {', '.join(lost)}")
    # What NumPy and zipfile raise for damaged bytes; NotImplementedError: they state an unknown compression.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{file}: damaged ({error}); remove interpretation.json, and repro interpret again") from None
    return found


def _without(image: Any, kept: Any) -> Any:
    """Return the image with dropped patches darkened."""
    side = int(len(kept) ** 0.5)
    light = np.where(kept.reshape(side, side), 1.0, _DROPPED_SHADE)
    size = image.shape[0] // side
    return (image * np.kron(light, np.ones((size, size)))[..., None]).astype(np.uint8)


def _outline(axes: Axes, mask: Any) -> None:
    if mask is not None and mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=_OUTLINE, linewidths=0.8)


def _figures(measured: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the measured shares and scores as text, one for each panel of an image."""
    stages = [
        f"object {stage['object_kept_pct']:.0f} %\nrest {stage['background_kept_pct']:.0f} %"
        if "object_kept_pct" in stage
        else f"kept {stage['kept_pct']:.0f} %"
        for stage in measured["stages"]
    ]
    maps = measured["maps"]
    return ["", *stages, *(f"mIoU {maps[name]['mean_iou_pct']:.1f} %" if name in maps else "" for name in names)]
