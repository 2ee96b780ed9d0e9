"""`reports/index.html`: a self-contained page, usable without a server, with a section for each table and scale.

A report writes its section (`<table>/<scale>/section.json`) and assembles the page from all sections in the folder.
"""

from __future__ import annotations

import base64
import json
import math
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from repro.files import read_object, write_json, write_text
from repro.report.card import NOT_STATED, Card
from repro.report.cells import Results
from repro.report.figures.drawings import Drawing
from repro.report.figures.files import COLUMN, figure_files, light_and_dark
from repro.report.folders import report_folder, reported
from repro.report.local_data import PUBLISHED_BACKBONE, local_label, trained_at
from repro.report.points import counted_macs_g
from repro.report.tables import html_environment
from repro.report.view import View
from repro.runs.validation import validated
from repro.tracking.mirror_file import read_mirror

SCHEMA = 4
_WIDTH, _HEIGHT, _MARGIN = 720, 300, 44
_FIGURES_HERE = "\0"  # occurs in no text of a record: `one_line` removes non-printable characters
_RUN_HEADS = (
    ("table", "table"),
    ("scale", "scale"),
    ("row", "row"),
    ("seed", "seed"),
    ("state", "state"),
    ("best", "top-1, best epoch (%)"),
    ("last", "top-1, last epoch (%)"),
    ("macs", f"MACs {PUBLISHED_BACKBONE} (G)"),
    ("data", "data, scale"),
    ("wandb", "W&B"),
    ("commit", "commit"),
    ("reason", "reason"),
)


@dataclass(frozen=True)
class Dot:
    """A finished run in a section's plot: position in SVG units, description, and URL of the record."""

    x: float
    y: float
    words: str
    href: str


@dataclass(frozen=True)
class Plot:
    """Accuracy (percent) of the finished runs against MACs (1e9 per image)."""

    dots: Sequence[Dot]
    most_macs: float = 0.0
    low: int = 0
    high: int = 0
    width: int = _WIDTH
    height: int = _HEIGHT
    margin: int = _MARGIN


def write_page(
    seen: View,
    runs: Sequence[Mapping[str, Any]],
    card: Card | None,
    figures: Sequence[Drawing],
    folder: Path,
    pending: str = "",
) -> list[Path]:
    """Write the section of a report and, from all sections under `folder`, `index.html`; return both paths.

    Args:
        runs: the runs, as returned by `run_lines`.
        pending: the figures that have not been drawn yet, and the command that draws them.
    """
    results = seen.results
    own = report_folder(folder, results.table.name, results.scale)
    section = {
        "schema": SCHEMA,
        "table": results.table.name,
        "scale": results.scale,
        "title": results.table.title,
        "tone": seen.summary.tone,
        "overview": seen.summary.overview,
        "html": section_html(seen, runs, card, has_figures=bool(figures), pending=pending),
        "figures": [{"name": figure.name, "caption": figure.caption} for figure in figures],
        "runs": runs,
    }
    write_json(own / "section.json", section, durable=False)
    return [own / "section.json", write_index(folder)]


def section_html(
    seen: View, runs: Sequence[Mapping[str, Any]], card: Card | None, *, has_figures: bool = False, pending: str = ""
) -> tuple[str, str]:
    """Return the HTML of a report before its figures (summary, table, claims) and after them (runs, card, notes)."""
    results = seen.results
    text = _render(
        "section.html",
        seen=seen,
        ids=section_id(results.table.name, results.scale),
        table=results.table,
        scale=results.scale,
        folder=f"{results.table.name}/{results.scale}",
        links=links_of(runs),
        card=card,
        not_stated=NOT_STATED,
        has_figures=has_figures,
        figures_here=_FIGURES_HERE,
        pending=pending,
        plot=_plot(runs),
        accuracy=local_label(results, "top-1, best epoch") or "top-1, best epoch",
        of_backbone=PUBLISHED_BACKBONE,
    )
    before, _, after = text.partition(_FIGURES_HERE)
    return before, after


def section_id(table: str, scale: str) -> str:
    """Return the anchor of a report on the page, which is also the prefix of its rows' and sources' anchors."""
    return f"{table}-{scale}"


def links_of(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the W&B URLs of each row's runs."""
    links: dict[str, list[str]] = {}
    for run in runs:
        if run.get("wandb"):
            links.setdefault(run["row"], []).append(run["wandb"])
    return links


def write_index(folder: Path) -> Path:
    """Write `<folder>/index.html` from the sections in `folder`, in the order of `paper_tables/`, then by scale."""
    sections = [section for own in reported(folder) if (section := _read_section(own / "section.json")) is not None]
    runs = [{"table": one["table"], "scale": one["scale"], **run} for one in sections for run in one["runs"]]
    text = _render(
        "index.html",
        sections=[
            {**one, "ids": section_id(one["table"], one["scale"]), "figures": list(_figures(folder, one))}
            for one in sections
        ],
        run_heads=_RUN_HEADS,
        # Escape every `<`, because a closing tag inside a string would end the script.
        runs=json.dumps(runs, allow_nan=False).replace("<", "\\u003c"),
        n_runs=len(runs),
    )
    path = folder / "index.html"
    write_text(path, text, durable=False)
    return path


class _Section(BaseModel):
    """The content of section.json."""

    model_config = ConfigDict(strict=True)

    table: str
    scale: str
    title: str
    tone: str
    overview: str
    html: Annotated[list[str], Field(min_length=2)]
    figures: list[dict[str, str]]
    runs: list[dict[str, Any]]


def _read_section(file: Path) -> dict[str, Any] | None:
    """Return a section; None if the file is missing or has another schema."""
    next_step = "remove it, and report that table again"
    section = read_object(file, next_step)
    if section is None or section.get("schema") != SCHEMA:
        return None
    validated(file, _Section, section, next_step)
    return section


def run_lines(results: Results, folder: Path) -> list[dict[str, Any]]:
    """Return every run that has a record, as JSON values; URLs of records are relative to `folder`."""
    lines: list[dict[str, Any]] = []
    for row in results.own_rows:
        evidence = row.evidence
        for seed, run in evidence.runs.items():
            if run.state == "missing":
                continue
            result, mirror = run.result or {}, read_mirror(run.record.path)
            lines.append(
                {
                    "row": row.row.id,
                    "seed": seed,
                    "state": run.state,
                    "best": result.get("top1_best_pct"),
                    "last": result.get("top1_last_pct"),
                    "macs": round(counted_macs_g(row.context.cost), 4),
                    "data": f"{evidence.config.data.name}, {trained_at([evidence])}",
                    "commit": run.commit,
                    "reason": run.reason,
                    "href": urllib.parse.quote(Path(os.path.relpath(run.record.path, folder)).as_posix()) + "/",
                    "wandb": mirror.url or "" if mirror is not None else "",
                }
            )
    return lines


def _plot(runs: Sequence[Mapping[str, Any]]) -> Plot:
    """Plot the finished runs; the limits of the accuracy axis are multiples of 5 %."""
    done = [run for run in runs if run["best"] is not None]
    if not done:
        return Plot(())
    most = max(run["macs"] for run in done) * 1.05
    low = math.floor(min(run["best"] for run in done) / 5) * 5
    high = max(low + 5, math.ceil(max(run["best"] for run in done) / 5) * 5)
    dots = [
        Dot(
            round(_MARGIN + (_WIDTH - 2 * _MARGIN) * run["macs"] / most, 1),
            round(_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (run["best"] - low) / (high - low), 1),
            f"{run['row']}, seed {run['seed']}: best {run['best']:.2f} % ({run['data']}), {run['macs']:.2f} GMACs",
            run["href"],
        )
        for run in done
    ]
    return Plot(dots, most, low, high)


def _figures(folder: Path, section: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a section's figures: pictures by media query, the caption, and links to the files."""
    own = report_folder(folder, section["table"], section["scale"])
    for figure in section["figures"]:
        name = figure["name"]
        files = {path.name.removeprefix(name): path for path in figure_files(own, name)}
        if all(path.is_file() for path in files.values()):
            links = {words: files[ending].relative_to(folder).as_posix() for words, ending in _FIGURE_LINKS.items()}
            pictures = {media: _address(files[ending]) for media, ending in _PICTURES.items()}
            yield {"caption": figure["caption"], "pictures": pictures, "links": links}


def _address(picture: Path) -> str:
    """Return the picture as a data URL."""
    encoded = base64.b64encode(light_and_dark(picture.read_text(encoding="utf-8")).encode()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


# The first picture whose media query matches is shown; the last always matches.
_PICTURES = {"(max-width: 700px)": f"{COLUMN}.svg", "": ".svg"}  # phone width, as in templates/style.css
_FIGURE_LINKS = {"PDF, 5.5 in": ".pdf", "PDF, 3.25 in": f"{COLUMN}.pdf", "PNG": ".png"}


def _render(template: str, **values: Any) -> str:
    return html_environment().get_template(template).render(**values)
