"""Where a model looks: images, the patches that each stage leaves, and heat maps beside the true object."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.errors import UserError
from repro.report.evidence import Evidence
from repro.report.local_data import trained_at
from repro.rows import Table
from repro.runs.record import Record

_IMAGES = 4
_MAPS = {"token_scores": "selector's scores", "class_attention": "class attention", "rollout": "attention rollout"}
_OUTLINE = "#ffffff"
_DROPPED_SHADE = 0.22  # of an image's light, where its patch was dropped


def interpretations(every: Sequence[Evidence]) -> Iterator[tuple[Evidence, Path, dict[str, Any]]]:
    """Each row's first finished seed that has been interpreted: its record's folder, and what was measured."""
    for evidence in every:
        for run in evidence.runs.values():
            if run.path is not None and run.state == "done":
                found = Record(run.path).interpretation()
                if found is not None:
                    yield evidence, run.path, found
                    break


def what_is_shown(every: Sequence[Evidence]) -> str:
    """All that the figure depends on, as text."""
    return json.dumps([(evidence.row.id, str(path), found) for evidence, path, found in interpretations(every)])


def draw_interpretation(table: Table, every: Sequence[Evidence]) -> Figure | None:
    """Four test images of the row with the most stages (the first of those), a column for each thing to see."""
    found = list(interpretations(every))
    if not found:
        return None
    evidence, path, measured = max(found, key=lambda one: len(one[2]["stages"]))
    shown = _pictures(path / "interpretation.npz")
    stages = shown["kept"].shape[1]
    names = [name for name in _MAPS if f"map_{name}" in shown]
    columns = ["image", *(f"after stage {stage + 1}" for stage in range(stages)), *(_MAPS[name] for name in names)]
    lines = len(shown["images"])
    figure = Figure(figsize=(1.15 * len(columns) + 0.3, 1.15 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, len(columns), squeeze=False)
    for line, index in zip(grid, range(lines), strict=True):
        image = shown["images"][index]
        mask = shown["masks"][index] if "masks" in shown else None
        panels = [image, *(_without(image, kept) for kept in shown["kept"][index])]
        for axes, panel in zip(line, panels, strict=False):
            axes.imshow(panel, interpolation="nearest")
        for axes, name in zip(line[1 + stages :], names, strict=True):
            axes.imshow(shown[f"map_{name}"][index].astype(float), cmap="magma", interpolation="nearest")
            _outline(axes, mask)
        _outline(line[0], mask)
        for axes in line:
            axes.set_axis_off()
    for axes, head, below in zip(grid[0], columns, _figures(measured, names), strict=True):
        axes.set_title(f"{head}\n{below}" if below else head, fontsize=6.5, fontweight="normal")
    row = evidence.row
    data = table.label(measured["data"])
    figure.suptitle(
        f"{table.label(row.backbone)}, {trained_at([evidence])}, {table.label(row.method)}: "
        f"{data}, {measured['images']} images",
        fontsize=8,
    )
    return figure


def _pictures(file: Path) -> dict[str, Any]:
    """The arrays of the first images. Raises `UserError` for a file that is gone or damaged."""
    try:
        with np.load(file) as stored:
            found = {name: stored[name][:_IMAGES] for name in stored.files}
        if lost := [name for name in ("images", "kept") if name not in found]:
            raise ValueError(f"no {', '.join(lost)}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: damaged ({error}); remove interpretation.json, and repro interpret again") from None
    return found


def _without(image: Any, kept: Any) -> Any:
    """The image with the patches darkened that are gone."""
    side = int(len(kept) ** 0.5)
    light = np.where(kept.reshape(side, side), 1.0, _DROPPED_SHADE)
    size = image.shape[0] // side
    return (image * np.kron(light, np.ones((size, size)))[..., None]).astype(np.uint8)


def _outline(axes: Axes, mask: Any) -> None:
    if mask is not None and mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=_OUTLINE, linewidths=0.8)


def _figures(measured: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What stands below each column's head."""
    stages = [
        f"{stage['object_kept_pct']:.0f} % of object,\n{stage['background_kept_pct']:.0f} % of rest"
        if "object_kept_pct" in stage
        else f"{stage['kept_pct']:.0f} % kept"
        for stage in measured["stages"]
    ]
    maps = measured["maps"]
    return ["", *stages, *(f"mIoU {maps[name]['mean_iou_pct']:.1f} %" if name in maps else "" for name in names)]
