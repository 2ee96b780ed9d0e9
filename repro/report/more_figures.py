"""The figures beside a table's own: accuracy against sparsity and cost, curves, layers, heads left, patches kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from repro.report.cost_figure import draw_cost
from repro.report.curve_figure import draw_curves, levels
from repro.report.evidence import Evidence
from repro.report.extracts import anatomies
from repro.report.figures import method_looks
from repro.report.histories import read_histories
from repro.report.interpretation_figure import draw_interpretation, what_is_shown
from repro.report.layer_figure import draw_layers
from repro.report.local_data import accuracy_axis, trained_at
from repro.report.style import REFERENCE_COLOUR, Look, few_ticks, write_figure
from repro.rows import Table

_KEPT, _GONE = "#0072B2", "#e3e6e8"
_DROPPED_SHADE = (0.84, 0.37, 0.0, 0.62)
Job = Callable[[], list[Path]]
_MOST_ROWS = 4  # of patches kept: one strip of images each
_TOKEN_PANELS = 8  # of a strip, where one image with all of its stages needs no more


@dataclass(frozen=True)
class Drawn:
    """A figure's name, what it shows, and how it is drawn: None for nothing to draw yet.

    `reads` is `frame`, `runs`, `anatomy` or `interpretation`.
    """

    name: str
    reads: str
    draw: Callable[[], Figure | None]


def more_figures(frame: pd.DataFrame, table: Table, every: Sequence[Evidence], folder: Path) -> list[Path]:
    """Write the figures that there are data for into `folder`; returns their paths."""
    return [path for job in figure_jobs(frame, table, every, folder) for path in job()]


def figure_jobs(frame: pd.DataFrame, table: Table, every: Sequence[Evidence], folder: Path) -> list[Job]:
    """A job for each figure, which writes it where there are data for it."""
    results = [(e.row.id, s, r.result) for e in every for s, r in e.runs.items()]
    finished = f"{[(row, seed, result) for row, seed, result in results if result]}{table}"
    finished += f"{trained_at(every)} {accuracy_axis(frame, table)}"
    jobs: list[Job] = []
    for one in drawings(frame, table, every):
        # A finished run's files do not change, but for what is extracted of it later.
        shows = frame.to_csv() if one.reads == "frame" else finished
        shows += str(list(anatomies(every))) if one.reads == "anatomy" else ""
        shows += what_is_shown(every) if one.reads == "interpretation" else ""
        jobs.append(functools.partial(write_figure, folder, f"{table.name}_{one.name}", shows, one.draw))
    return jobs


def drawings(frame: pd.DataFrame, table: Table, every: Sequence[Evidence]) -> tuple[Drawn, ...]:
    """Every figure of a table, in the order in which a page shows them."""
    return (
        Drawn("sparsity", "frame", lambda: draw_sparsity(frame, table)),
        Drawn("cost", "frame", lambda: draw_cost(frame, table, _looks(table))),
        Drawn("curves", "runs", lambda: draw_curves(table, every, _looks(table), accuracy_axis(frame, table))),
        Drawn("layers", "runs", lambda: draw_layers(table, list(read_histories(every)), trained_at(every))),
        Drawn("heads", "anatomy", lambda: draw_heads(table, every)),
        Drawn("tokens", "anatomy", lambda: draw_tokens(table, every)),
        Drawn("interpretation", "interpretation", lambda: draw_interpretation(table, every)),
    )


def draw_sparsity(frame: pd.DataFrame, table: Table) -> Figure | None:
    """A panel per backbone: mean accuracy over seeds against the sparsity of the weights, its spread as error bar."""
    prefix = "local_" if bool((frame["local_data"] != "").any()) else ""
    shown = frame[frame[f"{prefix}top1_best_pct"].notna()]
    if not shown["arch_sparsity_pct"].any():  # of a paper that leaves weights as they are, or nothing is finished
        return None
    look = _looks(table)
    backbones = list(dict.fromkeys(shown["backbone"]))
    figure = Figure(figsize=(max(4.6, 3.0 * len(backbones)), 3.4), layout="constrained")
    used: set[str] = set()
    for axes, backbone in zip(figure.subplots(1, len(backbones), squeeze=False)[0], backbones, strict=True):
        axes.set_title(table.label(backbone))
        for (method, data), lines in shown[shown["backbone"] == backbone].groupby(["method", "data_sparsity_pct"]):
            _draw_level(axes, lines.sort_values("arch_sparsity_pct"), str(method), float(str(data)), look, prefix)
            used.add(str(method))
        axes.set_xlabel("sparsity of the weights (%)")
        axes.margins(0.08, 0.12)
        few_ticks(axes)
    figure.axes[0].set_ylabel(accuracy_axis(frame, table))
    keys = [_key(table.label(method), look[method]) for method in look if method in used]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 5), columnspacing=1.4)
    return figure


def _draw_level(
    axes: Axes, lines: pd.DataFrame, method: str, data_pct: float, look: Mapping[str, Look], prefix: str
) -> None:
    style = look[method]
    axes.errorbar(
        lines["arch_sparsity_pct"],
        lines[f"{prefix}top1_best_pct"],
        yerr=lines[f"{prefix}top1_std_pct"],  # one seed has no spread, and no bar
        color=style.colour,
        marker=style.marker,
        markersize=5,
        linewidth=1.0,
        capsize=2.5,
    )
    if data_pct:
        last = lines.iloc[-1]
        axes.annotate(
            f"-{data_pct:g} % tokens",
            (last["arch_sparsity_pct"], last[f"{prefix}top1_best_pct"]),
            xytext=(6, -2),
            textcoords="offset points",
            fontsize=6.5,
            color=style.colour,
            path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],  # lines of other methods pass below it
            zorder=6,
        )


def draw_heads(table: Table, every: Sequence[Evidence]) -> Figure | None:
    """A map per row that removed heads: layers down, heads across, dark where a head still speaks."""
    maps = []
    for evidence, found in anatomies(every):
        heads = np.array(found["heads"], dtype=bool)
        if not heads.all():
            maps.append((evidence, heads))
    if not maps:
        return None
    across = min(len(maps), 6)
    down = math.ceil(len(maps) / across)
    figure = Figure(figsize=(1.45 * across + 0.4, 1.5 * down + 0.3), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flat
    for axes, (evidence, heads) in zip(grid, maps, strict=False):
        axes.imshow(heads, cmap=ListedColormap([_GONE, _KEPT]), vmin=0, vmax=1, aspect="auto", interpolation="none")
        axes.set_xticks(np.arange(-0.5, heads.shape[1]), minor=True)
        axes.set_yticks(np.arange(-0.5, heads.shape[0]), minor=True)
        axes.grid(visible=False, which="major")
        axes.grid(which="minor", color="white", linewidth=1.2)
        axes.tick_params(which="both", length=0)
        axes.set_xticks([0, heads.shape[1] - 1], labels=["1", str(heads.shape[1])])
        axes.set_yticks(range(heads.shape[0]), labels=[str(layer + 1) for layer in range(heads.shape[0])])
        row = evidence.row
        axes.set_title(
            f"{table.label(row.backbone)}\n{table.label(row.method)} {row.arch_sparsity_pct:g} %", fontsize=7
        )
    for axes in list(grid):
        axes.set_visible(False)
    for axes in figure.axes[len(maps) :]:
        axes.set_visible(False)
    figure.suptitle(f"Heads left, {trained_at(evidence for evidence, _ in maps)}", fontsize=9)
    figure.supxlabel("head", fontsize=8)
    figure.supylabel("layer", fontsize=8)
    return figure


def draw_tokens(table: Table, every: Sequence[Evidence]) -> Figure | None:
    """Test images of each row that drops patches: the image, then what each stage has left of it, the rest hatched."""
    strips = [(evidence, found) for evidence, found in anatomies(every) if "kept" in found][:_MOST_ROWS]
    if not strips:
        return None
    # An image takes a panel of its own and one for each stage; every strip has as many as fit, and at least one.
    stages = [len(found["kept"]) for _, found in strips]
    across = max(_TOKEN_PANELS, 1 + max(stages))
    figure = Figure(figsize=(0.85 * across + 1.2, 1.15 * len(strips) + 0.2), layout="constrained")
    figure.suptitle(f"Patches kept, {trained_at(evidence for evidence, _ in strips)}", fontsize=9)
    grid = figure.subplots(len(strips), across, squeeze=False)
    for line, (evidence, found) in zip(grid, strips, strict=True):
        for axes in line:
            axes.set_axis_off()
        panels = iter(line)
        for index in range(min(len(found["images"]), across // (1 + len(found["kept"])))):
            _draw_patches(next(panels), "image", found["images"][index], (), found["patch_size"])
            for stage, kept in enumerate(found["kept"], start=1):
                head = "kept" if len(found["kept"]) == 1 else f"stage {stage}"
                _draw_patches(next(panels), head, found["images"][index], kept[index], found["patch_size"])
        row = evidence.row
        line[0].set_axis_on()
        line[0].spines[:].set_visible(False)
        line[0].set_xticks([])
        line[0].set_yticks([])
        # What is gone of these images, stage by stage: of sixteen patches a row's 5 % are one, which is 6.25 %.
        dropped = ", ".join(f"{100 * (1 - np.mean(kept)):.3g}" for kept in found["kept"])
        method = table.label(row.method) + (f" {removed} %" if (removed := levels(row)) else "")
        name = f"{table.label(row.backbone)}\n{method}\n{dropped} % dropped"
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    return figure


def _draw_patches(axes: Axes, head: str, image: Sequence[Sequence[float]], kept: Sequence[bool], size: int) -> None:
    """An image; where `kept` says of its patches which stay, the others are hatched over."""
    pixels = np.array(image)
    side = pixels.shape[0] // size
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="none")
    axes.set_title(head, fontsize=6.5, fontweight="normal")
    for place in np.flatnonzero(~np.array(kept, dtype=bool)):
        corner = ((place % side) * size - 0.5, (place // side) * size - 0.5)
        axes.add_patch(
            mpl.patches.Rectangle(corner, size, size, facecolor=_DROPPED_SHADE, edgecolor="white", hatch="///")
        )


def _looks(table: Table) -> dict[str, Look]:
    """Those of every method, the references' among them."""
    references = [row for name in dict.fromkeys(row.backbone for row in table.rows) if (row := table.reference(name))]
    return method_looks(table) | {row.method: Look(REFERENCE_COLOUR, "*") for row in references}


def _key(label: str, look: Look) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=5, linewidth=1.0, label=label)
