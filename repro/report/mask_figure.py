"""How masks moved while training: churn, fired weights, units found, densities of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report.evidence import Evidence
from repro.report.figures import method_looks
from repro.report.histories import MaskHistory, read_histories
from repro.report.local_data import trained_at
from repro.report.style import Look, few_ticks, write_figure
from repro.rows import Table

_DASHED = (0, (4, 2))
_UNITS = ("neurons", "heads")
_MARKERS = 6
_KEYS_ACROSS = 3
_BESIDE = 0.18


def mask_figure(table: Table, every: Sequence[Evidence], folder: Path) -> list[Path]:
    """Write `<table>_masks.svg`, `.png`, `.pdf` into `folder`; returns their paths, none where no mask has moved.

    Shows one backbone: the one with most variants, then most histories; the first of those in the table.
    """
    histories = [history for history in read_histories(every) if history.moved]
    if not histories:
        return []
    scale = trained_at(every)
    return write_figure(
        folder, f"{table.name}_masks", f"{histories}{table}{scale}", lambda: draw_mask_figure(table, histories, scale)
    )


def draw_mask_figure(table: Table, histories: Sequence[MaskHistory], scale: str) -> Figure:
    """The figure itself, a 2 x 2 of panels; `scale` is what the models were trained at, in words (`trained_at`)."""
    shown = of_one_backbone(histories)
    backbone = shown[0].row.backbone
    look = method_looks(table)
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    (churn, fired), (units, layers) = figure.subplots(2, 2)
    figure.suptitle(f"{table.label(backbone)}, {scale}: how masks move, one seed", fontsize=9)
    _draw_churn(churn, table, shown, look)
    _draw_fired(fired, table, shown, look)
    _draw_units(units, table, shown, look)
    _draw_layers(layers, table, shown, look)
    for axes in (churn, fired, units):
        axes.set_xlabel("share of the training done")
        axes.set_xlim(0, 1)
        few_ticks(axes)
    keys = {label_of(table, history): _key(history, look, label_of(table, history)) for history in shown}
    figure.legend(handles=list(keys.values()), loc="outside lower center", ncols=min(len(keys), _KEYS_ACROSS))
    return figure


def _key(history: MaskHistory, look: Mapping[str, Look], label: str) -> Line2D:
    """A run's line as the legend below all panels shows it."""
    style = look[history.row.method]
    line = Line2D([], [], color=style.colour, linewidth=1.2, marker=style.marker, markersize=4, label=label)
    if history.variant:
        line.set_linestyle(_DASHED)
    return line


def of_one_backbone(histories: Sequence[MaskHistory]) -> list[MaskHistory]:
    """Those of the backbone with most variants, then most histories: one row for each method."""
    counts = [history.row.backbone for history in histories]
    variants = [history.row.backbone for history in histories if history.variant]
    backbone = max(dict.fromkeys(counts), key=lambda name: (variants.count(name), counts.count(name)))
    return _one_of_each_method([history for history in histories if history.row.backbone == backbone])


def _one_of_each_method(histories: Sequence[MaskHistory]) -> list[MaskHistory]:
    """All variants of one row for each method: the row with most variants, in the middle of those."""
    kept: list[MaskHistory] = []
    for method in dict.fromkeys(history.row.method for history in histories):
        own = [history for history in histories if history.row.method == method]
        ids = [history.row.id for history in own]
        most = max(ids.count(id_) for id_ in ids)
        rows = [id_ for id_ in dict.fromkeys(ids) if ids.count(id_) == most]
        kept += [history for history in own if history.row.id == rows[len(rows) // 2]]
    return kept


def _draw_churn(axes: Axes, table: Table, histories: Sequence[MaskHistory], look: Mapping[str, Look]) -> None:
    axes.set_title("Churn of a mask update")
    axes.set_ylabel("active entries that came in (%)")
    for history in histories:
        values = history.values("churn")
        if values is not None and any(values):
            _line(axes, history, values, look, label_of(table, history), start=1)
    _finish(axes, "no run grows anything")


def _draw_fired(axes: Axes, table: Table, histories: Sequence[MaskHistory], look: Mapping[str, Look]) -> None:
    axes.set_title("Fired weights and density")
    axes.set_ylabel("weights (%)")
    for history in histories:
        ever, density = history.values("ever_active"), history.values("density")
        if ever is None or density is None:
            continue
        if ever != density and min(ever) < 1:
            _line(axes, history, ever, look, f"{label_of(table, history)}: ever active")
        _line(axes, history, density, look, f"{label_of(table, history)}: active", dotted=True)
    axes.set_ylim(0, 103)
    _finish(axes, "no unstructured run")
    if axes.lines:
        keys = [
            Line2D([], [], color="#555555", linestyle="-", linewidth=1.2, label="ever active"),
            Line2D([], [], color="#555555", linestyle=":", linewidth=1.2, label="active"),
        ]
        axes.legend(handles=keys, fontsize=6.5, loc="best")


def _draw_units(axes: Axes, table: Table, histories: Sequence[MaskHistory], look: Mapping[str, Look]) -> None:
    """One row only, in all its variants: the point is what they differ in."""
    axes.set_title("Units that were ever active")
    axes.set_ylabel("units (%)")
    structured = [history for history in histories if history.values("neurons_ever_active")]
    variants = [history for history in structured if history.row.id == structured[0].row.id]
    # The options that make the variants, with the default's own value too.
    differing = [key for key in (structured[0].options if structured else {}) if _differs(key, variants)]
    for history in variants:
        words = ", ".join(f"{key} {history.options[key]}" for key in differing)
        for kind in _UNITS:
            values = history.values(f"{kind}_ever_active")
            assert values is not None
            axes.plot(
                [*history.progress, 1.0],
                [100 * value for value in [*values, values[-1]]],
                drawstyle="steps-post",
                color=look[history.row.method].colour if not history.variant else "#555555",
                linestyle="-" if kind == "neurons" else _DASHED,
                linewidth=1.4,
                label=f"{kind}, {words}" if words else kind,
            )
    if variants:
        axes.set_title(f"Units that were ever active: {label_of(table, variants[0], plain=True)}")
    axes.set_ylim(0, 103)
    _finish(axes, "no structured run")
    if axes.lines:
        axes.legend(fontsize=6.5, loc="best")


def _differs(key: str, histories: Sequence[MaskHistory]) -> bool:
    return any(history.options.get(key) != histories[0].options.get(key) for history in histories)


def _draw_layers(axes: Axes, table: Table, histories: Sequence[MaskHistory], look: Mapping[str, Look]) -> None:
    axes.set_title("Density of each layer at the end")
    axes.set_ylabel("active weights (%)")
    drawn = [history for history in histories if history.values("density") is not None and not history.variant]
    names: list[str] = []
    for place, history in enumerate(drawn):
        density = history.layer_density
        names = names or [short_layer(name) for name in density]
        style = look[history.row.method]
        axes.plot(
            # Beside each other: methods that spread their weights alike would hide one another.
            [at + _BESIDE * (place - (len(drawn) - 1) / 2) for at in range(len(density))],
            [100 * value for value in density.values()],
            color=style.colour,
            marker=style.marker,
            markersize=3,
            linewidth=0.7,
            label=label_of(table, history),
        )
    step = max(1, len(names) // 18)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=6)
    axes.set_ylim(0, 103)
    _finish(axes, "no unstructured run")


def _line(
    axes: Axes,
    history: MaskHistory,
    values: Sequence[float],
    look: Mapping[str, Look],
    label: str,
    *,
    start: int = 0,
    dotted: bool = False,
) -> None:
    progress = list(history.progress[start:])
    percents = [100 * value for value in values[start:]]
    if not start:  # what a mask is it stays, to the end
        progress.append(1.0)
        percents.append(percents[-1])
    axes.plot(
        progress,
        percents,
        color=look[history.row.method].colour,
        linestyle=":" if dotted else (_DASHED if history.variant else "-"),
        linewidth=1.2,
        marker=look[history.row.method].marker,
        markersize=4,
        markevery=_every(axes, len(progress)),
        label=label,
    )


def _every(axes: Axes, count: int) -> tuple[int, int]:
    """A few markers on a line, elsewhere than on the lines before: some lines lie upon each other."""
    step = max(1, count // _MARKERS)
    return min(len(axes.lines) * step // _MARKERS, count - 1), step


def label_of(table: Table, history: MaskHistory, *, plain: bool = False) -> str:
    """Method and levels, as a legend names a run; `plain` leaves out what makes it a variant."""
    row = history.row
    levels = [f"{pct:g}" for pct in (row.data_sparsity_pct, row.arch_sparsity_pct) if pct]
    name = f"{table.label(row.method)} {', '.join(levels)} %"
    return f"{name}, {history.variant}" if history.variant and not plain else name


def short_layer(layer: str) -> str:
    """`blocks.3.attn.qkv` as `3 qkv`, `blocks.3.mlp` as `3 mlp`."""
    found = re.fullmatch(r"blocks\.(\d+)\.(?:\w+\.)?(\w+)", layer)
    return f"{found[1]} {found[2]}" if found else layer.removesuffix(".proj")


def _finish(axes: Axes, nothing: str) -> None:
    if not axes.lines:
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", va="center")
