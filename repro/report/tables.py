"""The writers: one frame as CSV, Markdown, LaTeX, HTML, and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from repro.report import escaping
from repro.report.claims import JudgedClaim
from repro.report.latex_width import heads_of
from repro.report.local_data import local_title
from repro.report.segmentation import images_of, local_images, segmentation_metrics
from repro.report.verdicts import NO_PUBLISHED_VALUE
from repro.report.view import (
    CLAIM_HEADS,
    NOTHING,
    View,
    facts,
    has_columns,
    measured_cell,
    number,
    published_number,
    rows_by_id,
    section_label,
    tone,
    view,
    with_spread,
)
from repro.rows import Metric, Row, Table
from repro.runs.files import write_text

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_TIMES = ("time_saving_pct",)  # of what is measured on a device, what the terminal has a column for
_NUMBER, _SPREAD, _VERDICT = 6, 12, 11  # characters: 100.00, 79.90 ± 0.10, other scale
_STYLES = {"good": "green", "off": "yellow", "bad": "bold red", "quiet": "dim"}


def write_tables(
    frame: pd.DataFrame,
    table: Table,
    folder: Path,
    overrides: Sequence[str] = (),
    claims: Sequence[JudgedClaim] | None = None,
) -> list[Path]:
    """Write `<table>.csv`, `.md`, `.tex` and `.html` into `folder`, each atomically; returns their paths.

    `claims` are as `view` takes them.
    """
    seen = view(frame, table, overrides, claims)
    written = []
    for ending, text in (
        ("csv", csv_text(frame)),
        ("md", markdown_text(seen)),
        ("tex", latex_text(seen)),
        ("html", html_text(seen)),
    ):
        path = folder / f"{table.name}.{ending}"
        write_text(path, text, is_kept=False)
        written.append(path)
    return written


def csv_text(frame: pd.DataFrame) -> str:
    """The whole frame, numbers to ten digits, an empty field where there is no value."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def markdown_text(seen: View) -> str:
    """The reader's view as GitHub's Markdown."""
    return _render("table.md", seen, finalize=escaping.markdown)


def latex_text(seen: View) -> str:
    """The reader's view as a LaTeX document with booktabs."""
    return _render(
        "table.tex",
        seen,
        {"paper": heads_of(seen)},
        finalize=escaping.latex,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )


def html_text(seen: View) -> str:
    """The reader's view as one HTML page that needs no other file."""
    return _render("table.html", seen, autoescape=True)


def _render(
    name: str,
    seen: View,
    more: Mapping[str, Any] | None = None,
    finalize: Callable[[Any], str] | None = None,
    **syntax: Any,
) -> str:
    # `finalize` sees every value that a template prints, so that no template can forget to escape one.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
        **syntax,
    )
    rules, start = [], 1
    for group, span in seen.spans:
        if group and span > 1:
            rules.append((start, start + span - 1))
        start += span
    return environment.get_template(name).render(
        title=seen.title,
        facts=seen.facts,
        columns=seen.columns,
        spans=seen.spans,
        rules=rules,
        starts=seen.starts,
        sections=seen.sections,
        notes=seen.notes,
        claims=seen.claims,
        claim_heads=CLAIM_HEADS,
        **(more or {}),
    )


def print_table(frame: pd.DataFrame, table: Table, console: Console) -> None:
    """The frame for a terminal of 120 columns: a line per row, published beside measured, the verdicts in words."""
    rows = rows_by_id(table)
    local = local_title(frame, table)
    counted = [m for m in table.metrics.values() if m.needs == "analysis"]
    # Where the paper publishes no cost at all, what is counted here is all there is to show.
    costs = [m for m in counted if has_columns(table, m)] or counted
    trained = [m for m in table.metrics.values() if m.needs == "training" and has_columns(table, m)]
    timed = [m for m in table.metrics.values() if m.name in _TIMES and bool(frame[m.name].notna().any())]
    named = [rows[name] for name in frame["row"]]
    first = max(max(len(f" {_short(row)}"), len(section_label(table, row))) for row in named)
    heads = _heads(costs, timed, trained, local, table)
    if first + sum(1 + width for _, width, _ in heads) > console.width:
        timed = []  # in the files as ever
        heads = _heads(costs, timed, trained, local, table)
    grid = Grid(box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    grid.add_column("row", no_wrap=True)
    for words, width, is_numeric in heads:
        grid.add_column(words, justify="right" if is_numeric else "left", width=width)
    section = None
    lines: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    for line in lines:
        row = rows[line["row"]]
        if section_label(table, row) != section:
            section = section_label(table, row)
            grid.add_row(Text(section, style="bold"))
        cells = [Text(f" {_short(row)}")]
        for metric in costs:
            cells.append(Text(number(line[metric.name])))
            if metric.name.endswith("_pct") and has_columns(table, metric):
                cells.append(_published(row, metric))
        cells += [Text(number(line[metric.name], 1)) for metric in timed]
        cells.append(_worded(_worst([str(line[f"{metric.name}_verdict"]) for metric in counted])))
        if local:
            cells.append(Text(with_spread(line["local_top1_best_pct"], line["local_top1_std_pct"])))
        for metric in trained:
            if not local:
                cells.append(Text(measured_cell(line, metric).text))
            cells += [_published(row, metric), _worded(str(line[f"{metric.name}_verdict"]))]
        cells.append(_worded(str(line["state"])))
        grid.add_row(*cells)
    console.print(Text(table.title, style="bold"))
    console.print(Text("; ".join(f"{name.lower()} {words}" for name, words in facts(frame, table)[1:])), soft_wrap=True)
    console.print(grid)


def _short(row: Row) -> str:
    """A row's name below that of its backbone."""
    return row.id.removeprefix(f"{row.backbone}/")


def _heads(
    costs: Sequence[Metric], timed: Sequence[Metric], trained: Sequence[Metric], local: str, table: Table
) -> list[tuple[str, int, bool]]:
    """The terminal's columns after the row's name: words, width in characters, and whether they hold numbers."""
    heads: list[tuple[str, int, bool]] = []
    for metric in costs:
        heads.append((metric.label, _widest(metric.label), True))
        if metric.name.endswith("_pct") and has_columns(table, metric):
            heads.append(("paper", 5, True))
    heads += [(metric.label, _widest(metric.label), True) for metric in timed]
    # Costs are decided at every scale, accuracies are not, so each has a verdict column of its own.
    heads.append(("cost", _VERDICT, False))
    if local:
        heads.append((local, _widest(local, _SPREAD), True))
    for metric in trained:
        if not local:
            heads.append((metric.label, _SPREAD, True))
        published = f"paper {metric.label}" if local else "paper"
        heads += [(published, _widest(published), True), ("accuracy", _VERDICT, False)]
    return [*heads, ("runs", _VERDICT, False)]


def print_segmentation(frame: pd.DataFrame, table: Table, console: Console) -> None:
    """What rows say that read heat maps, for a terminal: a line each, and of which images it is."""
    metrics = segmentation_metrics(table)
    lines: list[dict[str, Any]] = [line for line in frame.to_dict("records") if metrics and line["heat_map"]]  # type: ignore[misc]
    if not lines:
        return
    rows = rows_by_id(table)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    grid.add_column("heat maps held against true masks", no_wrap=True)
    for metric in metrics:
        words = f"{metric.label}, not as published" if local_images(frame, table, metric) else metric.label
        grid.add_column(words, justify="right", width=10)
        grid.add_column("paper", justify="right", width=5)
    grid.add_column("of", overflow="fold")
    for line in lines:
        cells = [Text(line["row"])]
        for metric in metrics:
            is_elsewhere = math.isnan(line[metric.name])
            value = line[f"local_{metric.name}"] if is_elsewhere else line[metric.name]
            cells += [Text(number(value)), _published(rows[line["row"]], metric)]
        verdicts = {str(line[f"{metric.name}_verdict"]) for metric in metrics} - {NO_PUBLISHED_VALUE}
        cells.append(Text("; ".join([*sorted(verdicts), images_of(line, table)])))
        grid.add_row(*cells)
    console.print(grid)


def print_claims(judged: Sequence[JudgedClaim], console: Console) -> None:
    """The claims for a terminal, the verdict before the sentence."""
    if not judged:
        return
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    grid.add_column("claims", width=22)
    grid.add_column("", overflow="fold")
    for claim in judged:
        grid.add_row(Text(claim.verdict, style=_STYLES[tone(claim.verdict)]), Text(claim.claim.statement))
    console.print(grid)


def _published(row: Row, metric: Metric) -> Text:
    published = row.best_published(metric.name)
    return Text(published_number(published)) if published else Text(NOTHING, style="dim")


def _worst(verdicts: Sequence[str]) -> str:
    """The verdict of several cells: the first that is not reproduced; no value counts only where there is none."""
    decided = [verdict for verdict in verdicts if verdict != NO_PUBLISHED_VALUE]
    return min(decided, key=lambda verdict: tone(verdict) == "good", default=NO_PUBLISHED_VALUE)


def _worded(verdict: str) -> Text:
    if verdict == NO_PUBLISHED_VALUE:
        return Text(NOTHING, style="dim")
    # Of `partial (2 of 3)` there is room for what counts.
    return Text(verdict.removeprefix("partial (").removesuffix(")"), style=_STYLES[tone(verdict)])


def _widest(words: str, least: int = _NUMBER) -> int:
    """The characters that a column takes: those of its numbers, and of the longest word of its head."""
    return max(least, *map(len, words.split()))
