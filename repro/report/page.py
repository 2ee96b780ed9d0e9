"""`reports/index.html`: a self-contained page, usable without a server, with a section for each table and scale.

A report writes its section (`<table>/<scale>/section.json`) and assembles the page from all sections in the folder.
"""

from __future__ import annotations

import base64
import json
import math
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from repro.files import read_object, write_json, write_text
from repro.report.card import NOT_STATED, Card
from repro.report.cells import Results
from repro.report.figures.drawings import Drawing
from repro.report.figures.files import COLUMN, figure_files, light_and_dark
from repro.report.folders import report_folder, report_folders
from repro.report.local_data import PUBLISHED_BACKBONE, local_label, trained_at
from repro.report.points import counted_macs_g
from repro.report.tables import html_environment
from repro.report.view import View
from repro.runs.validation import validated
from repro.tracking.mirror_file import read_mirror

SCHEMA = 5
_WIDTH, _HEIGHT, _MARGIN = 720, 300, 44
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
        "tone": seen.summary.tone,
        "overview": seen.summary.overview,
        "html": section_html(seen, runs, card, [_figure(folder, own, figure) for figure in figures], pending),
        "runs": runs,
    }
    write_json(own / "section.json", section, durable=False)
    return [own / "section.json", write_index(folder)]


def section_html(
    seen: View,
    runs: Sequence[Mapping[str, Any]],
    card: Card | None,
    figures: Sequence[Mapping[str, Any]] = (),
    pending: str = "",
) -> str:
    """Return the HTML of a report: summary, table, claims, figures, runs, card, notes."""
    results = seen.results
    return _render(
        "section.html",
        seen=seen,
        ids=section_id(results.table.name, results.scale),
        table=results.table,
        scale=results.scale,
        folder=f"{results.table.name}/{results.scale}",
        links=links_of(runs),
        card=card,
        not_stated=NOT_STATED,
        figures=figures,
        pending=pending,
        plot=_plot(runs),
        accuracy=local_label(results, "top-1, best epoch") or "top-1, best epoch",
        of_backbone=PUBLISHED_BACKBONE,
    )


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
    sections = [
        section for own in report_folders(folder) if (section := _read_section(own / "section.json")) is not None
    ]
    runs = [{"table": one["table"], "scale": one["scale"], **run} for one in sections for run in one["runs"]]
    text = _render(
        "index.html",
        sections=[{**one, "ids": section_id(one["table"], one["scale"])} for one in sections],
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
    tone: str
    overview: str
    html: str
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


def _plot(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the plot of the finished runs, accuracy (percent) against MACs (1e9 per image); None if there are none.

    The limits of the accuracy axis are multiples of 5 %. A dot has its position in SVG units.
    """
    done = [run for run in runs if run["best"] is not None]
    if not done:
        return None
    max_macs_g = max(run["macs"] for run in done) * 1.05
    low = math.floor(min(run["best"] for run in done) / 5) * 5
    high = max(low + 5, math.ceil(max(run["best"] for run in done) / 5) * 5)
    dots = [
        {
            "x": round(_MARGIN + (_WIDTH - 2 * _MARGIN) * run["macs"] / max_macs_g, 1),
            "y": round(_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (run["best"] - low) / (high - low), 1),
            "words": f"{run['row']}, seed {run['seed']}: best {run['best']:.2f} % ({run['data']}), "
            f"{run['macs']:.2f} GMACs",
            "href": run["href"],
        }
        for run in done
    ]
    size = {"width": _WIDTH, "height": _HEIGHT, "margin": _MARGIN}
    return {"dots": dots, "max_macs_g": max_macs_g, "low": low, "high": high, **size}


def _figure(folder: Path, own: Path, figure: Drawing) -> dict[str, Any]:
    """Return a figure in the folder `own`: pictures by media query, caption, and links to files, from `folder`."""
    files = {path.name.removeprefix(figure.name): path for path in figure_files(own, figure.name)}
    links = {words: files[ending].relative_to(folder).as_posix() for words, ending in _FIGURE_LINKS.items()}
    pictures = {media: _address(files[ending]) for media, ending in _PICTURES.items()}
    return {"caption": figure.caption, "pictures": pictures, "links": links}


def _address(picture: Path) -> str:
    """Return the picture as a data URL."""
    encoded = base64.b64encode(light_and_dark(picture.read_text(encoding="utf-8")).encode()).decode()
    return f"data:image/svg+xml;base64,{encoded}"


# The first picture whose media query matches is shown; the last always matches.
_PICTURES = {"(max-width: 700px)": f"{COLUMN}.svg", "": ".svg"}  # phone width, as in templates/style.css
_FIGURE_LINKS = {"PDF, 5.5 in": ".pdf", "PDF, 3.25 in": f"{COLUMN}.pdf", "PNG": ".png"}


def _render(template: str, **values: Any) -> str:
    return html_environment().get_template(template).render(**values)
