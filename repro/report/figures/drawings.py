"""All figures of a report: name, caption and drawing function."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from repro.cores import cores
from repro.report.cells import Results
from repro.report.figures.accuracy import Scatter, local_scatter, published_scatter, sparsity_scatter
from repro.report.figures.anatomy import draw_heads, draw_tokens
from repro.report.figures.cost import draw_cost
from repro.report.figures.curves import backbones_with_curves, draw_curves
from repro.report.figures.files import Draw, figure_files, is_current, write_figure
from repro.report.figures.interpretation import draw_interpretation
from repro.report.figures.layers import draw_layers
from repro.report.figures.mask_history import MaskHistory, read_histories
from repro.report.figures.masks import draw_churn, draw_ever_active, draw_final_density, draw_units
from repro.report.figures.pending import extracts
from repro.report.frame import frame_of
from repro.report.local_data import trained_at
from repro.runs.record import Record

_INTERVALS = (
    "Bars are 95 % intervals: of a proportion of the test images (Wilson), or over seeds (Student's t) if wider"
)
_STARTS_LATER = "Curves of rows that start from another row's weights begin where the training that they share ends"
_FROM_0 = "blocks are counted from 0"
_BESIDE = "Points at the same place are drawn side by side"


@dataclass(frozen=True)
class Drawing:
    """A figure: the name of its files, a caption of one or two sentences, and the function that draws it."""

    name: str
    caption: str
    draw: Draw


def drawings(results: Results, histories: Sequence[MaskHistory] | None = None) -> Iterator[Drawing]:
    """Yield every figure that a table can have, in page order.

    `histories` are the output of `read_histories` for the evidence of the results, read here if not given.
    """
    table = results.table
    own = results.own_rows
    # A row with settings of its own is not representative of its method.
    usual = replace(results, rows=[row for row in own if not row.row.own_overrides])
    every = [row.evidence for row in usual.rows]
    histories = list(read_histories(results.evidence)) if histories is None else histories
    scale = trained_at(row.evidence for row in own) if own else ""

    def of(name: str, caption: str, draw: Draw) -> Drawing:
        return Drawing(f"{table.name}_{name}", caption, draw)

    def scatter(name: str, caption: str, shown: Scatter) -> Drawing:
        few = f" No panel for {' and '.join(shown.without_panel)}: a single row." if shown.without_panel else ""
        return Drawing(name, f"{caption}{few}", shown.draw)

    published = published_scatter(usual)
    yield scatter(
        table.figure,
        "Accuracy against MACs, published (hollow; bars: the uncertainty that the source states, or that of reading a "
        f"figure){' and measured (solid)' if published.measured else ''}; dashed: the dense model, one line for each "
        f"source.{f' {_INTERVALS}.' if published.measured else ''}",
        published,
    )
    yield scatter(
        f"{table.name}_local",
        f"Accuracy at this scale against MACs. {_INTERVALS}. {_BESIDE}.",
        local_scatter(usual),
    )
    yield scatter(
        f"{table.name}_sparsity",
        f"Accuracy at each sparsity level of the weights; dashed: the dense model. {_INTERVALS}. {_BESIDE}.",
        sparsity_scatter(usual),
    )
    yield of(
        "cost",
        "What is saved against the gain over the dense model of the same backbone. Bars are 95 % intervals: of a "
        "difference of two proportions of the test images (Newcombe), or over paired seeds if wider. "
        "Points with the same saving are moved sideways a little; the table has the values.",
        functools.partial(draw_cost, usual),
    )
    for backbone in backbones_with_curves(usual):
        starts_later = any(one.config.earlier_epochs for one in every if one.row.backbone == backbone and one.n_done)
        yield of(
            curves_name(backbone),
            f"Accuracy of {table.label(backbone)} over training: mean over seeds, band: standard deviation."
            f"{f' {_STARTS_LATER}.' if starts_later else ''}",
            functools.partial(draw_curves, usual, backbone),
        )
    for name, caption, draw in (
        ("churn", "The share of active weights or units that each mask update exchanged.", draw_churn),
        ("ever_active", "Weights that are active, and those that have ever been.", draw_ever_active),
        ("units", "Heads and neurons that have ever been active, for each option that was run.", draw_units),
        ("final_density", f"Density of each layer after the last mask update; {_FROM_0}.", draw_final_density),
        ("layers", f"Density of each layer over training; {_FROM_0}.", draw_layers),
    ):
        yield of(name, f"{caption} One seed.", functools.partial(draw, table, histories, scale))
    heads = f"Heads left in each block, one seed; heads and {_FROM_0}."
    yield of("heads", heads, functools.partial(draw_heads, table, every))
    tokens = "Patches that are kept, one seed; dropped ones are hatched."
    yield of("tokens", tokens, functools.partial(draw_tokens, table, every))
    yield of(
        "interpretation",
        "Where the model looks: patches that each stage keeps, and heat maps; the object is outlined.",
        functools.partial(draw_interpretation, table, every),
    )


def curves_name(backbone: str) -> str:
    """Return the name of the figure of a backbone's curves, without that of the table."""
    return f"curves_{backbone}"


def write_figures(results: Results, folder: Path) -> tuple[list[Drawing], list[Path]]:
    """Write the figures for which there is data into `folder`; return the figures and the paths of their files.

    Files of the table's other figures are removed: those of an earlier report, of other rows, show other data.
    """
    histories = list(read_histories(results.evidence))
    shows = _what_figures_show(results, histories)
    every = list(drawings(results, histories))
    files = _draw_in_parallel(every, folder, shows)
    written = [drawing for drawing, own in zip(every, files, strict=True) if own]
    curves = {f"{results.table.name}_{curves_name(row.backbone)}" for row in results.table.every_row}
    for name in (curves | {one.name for one in every}) - {one.name for one in written}:
        for path in figure_files(folder, name):
            path.unlink(missing_ok=True)
    return written, [path for own in files for path in own]


def _draw_in_parallel(every: Sequence[Drawing], folder: Path, shows: str) -> list[list[Path]]:
    """Draw figures and return the files of each. Drawing takes most of a report's time, so it uses all cores."""
    stale = [drawing for drawing in every if not is_current(folder, drawing.name, shows)]
    n_processes = min(cores(), len(stale))
    if n_processes < 2:
        return _draw(every, folder, shows)
    with ProcessPoolExecutor(n_processes, mp_context=get_context("fork")) as pool:
        shares = [stale[first::n_processes] for first in range(n_processes)]
        list(pool.map(_draw, shares, repeat(folder), repeat(shows)))
    return [figure_files(folder, one.name) if is_current(folder, one.name, shows) else [] for one in every]


def _draw(every: Sequence[Drawing], folder: Path, shows: str) -> list[list[Path]]:
    return [write_figure(folder, drawing.name, shows, drawing.draw) for drawing in every]


def _what_figures_show(results: Results, histories: Sequence[MaskHistory]) -> str:
    """Return everything that figures depend on, as text: files of a finished run do not change, except for extracts."""
    evidence = results.evidence
    runs = [(one.row.id, seed, run.result) for one in evidence for seed, run in one.runs.items() if run.result]
    extracted = [
        (one.row.id, record.path.name, found)
        for read in (Record.anatomy, Record.interpretation)
        for one, record, found in extracts(evidence, read)
    ]
    return f"{results.table}{frame_of(results).to_csv()}{runs}{histories}{extracted}"
