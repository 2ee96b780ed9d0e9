"""`reports/index.html`: one page with a section for every table that has been reported, which asks no server.

A report writes its own table's section (`<table>/section.json`) and puts the page together from all sections there
are, so that the tables of one folder stand on one page whichever was reported last.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from repro.paper_tables import table_names
from repro.report.card import NOT_STATED, Card
from repro.report.claims import JudgedClaim
from repro.report.evidence import Evidence
from repro.report.local_data import PUBLISHED_BACKBONE, local_title, trained_at
from repro.report.points import counted_macs_g
from repro.report.view import CLAIM_HEADS, view
from repro.rows import Table
from repro.runs.checking import checked
from repro.runs.files import read_object, write_json, write_text

SCHEMA = 1
_TEMPLATES = Path(__file__).resolve().parent / "templates"
_WIDTH, _HEIGHT, _MARGIN = 720, 300, 44
_FIGURES_HERE = "\0"  # no text of a record has it: `one_line` takes what is not printable out
_RUN_HEADS = (
    *(("table", "table"), ("row", "row"), ("seed", "seed"), ("state", "state"), ("best", "best top-1 (%)")),
    *(
        ("last", "last top-1 (%)"),
        ("macs", f"MACs {PUBLISHED_BACKBONE} (G)"),
        ("data", "data, scale"),
        ("commit", "commit"),
        ("reason", "reason"),
    ),
)


@dataclass(frozen=True)
class Dot:
    """A finished run in a table's plot: where it is, in SVG units, and what is said of it."""

    x: float
    y: float
    words: str
    href: str


def write_page(
    frame: pd.DataFrame,
    table: Table,
    every: Sequence[Evidence],
    card: Card | None,
    figures: Sequence[Path],
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    awaited: str = "",
    claims: Sequence[JudgedClaim] | None = None,
) -> list[Path]:
    """Write `<folder>/<table>/section.json` and, of all sections there are, `<folder>/index.html`; returns both paths.

    Args:
        every: the evidence behind the frame's lines; its runs are listed and plotted.
        card: None where no run is finished.
        figures: what was drawn; the SVGs among them are held by the page itself.
        awaited: what of the figures is not there yet, and how it comes.
        claims: as `view` takes them.
    """
    runs = run_lines(frame, every, folder)
    drawn = [path.stem for path in figures if path.suffix == ".svg"]
    section = {
        "schema": SCHEMA,
        "table": table.name,
        "title": table.title,
        "html": section_html(
            frame, table, runs, card, overrides, has_figures=bool(drawn), awaited=awaited, claims=claims
        ),
        "figures": drawn,
        "runs": runs,
    }
    write_json(section_file(folder, table.name), section, is_kept=False)
    return [section_file(folder, table.name), write_index(folder)]


def section_file(folder: Path, table: str) -> Path:
    """Where a table's section is kept."""
    return folder / table / "section.json"


def section_html(
    frame: pd.DataFrame,
    table: Table,
    runs: Sequence[dict[str, Any]],
    card: Card | None,
    overrides: Sequence[str] = (),
    *,
    has_figures: bool = False,
    awaited: str = "",
    claims: Sequence[JudgedClaim] | None = None,
) -> tuple[str, str]:
    """A table's part of the page, what comes before its figures (table, claims) and after (runs, card, notes)."""
    dots, low, high = _dots(runs)
    seen = view(frame, table, overrides, claims)
    text = _render(
        "section.html",
        seen=seen,
        starts=seen.starts,
        table=table,
        claim_heads=CLAIM_HEADS,
        card=card,
        not_stated=NOT_STATED,
        has_figures=has_figures,
        figures_here=_FIGURES_HERE,
        awaited=awaited,
        dots=dots,
        accuracy=local_title(frame, table) or "top-1",
        of_backbone=PUBLISHED_BACKBONE,
        axis={"low": low, "high": high, "width": _WIDTH, "height": _HEIGHT, "margin": _MARGIN},
    )
    before, _, after = text.partition(_FIGURES_HERE)
    return before, after


def write_index(folder: Path) -> Path:
    """Put `<folder>/index.html` together from the sections in `folder`, in the order of `paper_tables/`."""
    sections = [section for name in table_names() if (section := _read_section(section_file(folder, name))) is not None]
    runs = [{"table": section["table"], **run} for section in sections for run in section["runs"]]
    text = _render(
        "index.html",
        sections=[{**section, "figures": list(_figures(folder, section))} for section in sections],
        run_heads=_RUN_HEADS,
        # A closing tag inside a string would end the script: no `<` is left in the data.
        runs=json.dumps(runs, allow_nan=False).replace("<", "\\u003c"),
        n_runs=len(runs),
    )
    path = folder / "index.html"
    write_text(path, text, is_kept=False)
    return path


class _Section(BaseModel):
    """What section.json holds."""

    model_config = ConfigDict(strict=True)

    table: str
    title: str
    html: Annotated[list[str], Field(min_length=2)]
    figures: list[str]
    runs: list[dict[str, Any]]


_SECTION = TypeAdapter(_Section)


def _read_section(file: Path) -> dict[str, Any] | None:
    """A section as it was written; None where there is none that this code can show."""
    next_step = "remove it, and report that table again"
    section = read_object(file, next_step)
    if section is None or section.get("schema") != SCHEMA:
        return None
    checked(file, _SECTION, section, next_step)
    return section


def run_lines(frame: pd.DataFrame, every: Sequence[Evidence], folder: Path) -> list[dict[str, Any]]:
    """Every run there is a record of, as JSON values; links are relative to `folder`."""
    lines: list[dict[str, Any]] = []
    for line, evidence in zip(frame.to_dict("records"), every, strict=True):
        for seed, run in evidence.runs.items():
            if run.path is None or evidence.row.run_of:  # listed with the row that it is of
                continue
            result = run.result or {}
            lines.append(
                {
                    "row": evidence.row.id,
                    "seed": seed,
                    "state": run.state,
                    "best": result.get("top1_best_pct"),
                    "last": result.get("top1_last_pct"),
                    "macs": round(counted_macs_g(line), 4),  # type: ignore[arg-type]
                    "data": f"{evidence.config.data.name}, {trained_at([evidence])}",
                    "commit": run.commit,
                    "reason": run.reason,
                    "href": urllib.parse.quote(Path(os.path.relpath(run.path, folder)).as_posix()) + "/",
                }
            )
    return lines


def _dots(runs: Sequence[dict[str, Any]]) -> tuple[list[Dot], tuple[float, float], tuple[float, float]]:
    """The finished runs in SVG units, and the (MACs, accuracy) of the plot's lower left and upper right corner."""
    done = [run for run in runs if run["best"] is not None]
    if not done:
        return [], (0.0, 0.0), (0.0, 0.0)
    most = max(run["macs"] for run in done) * 1.05
    low = math.floor(min(run["best"] for run in done) / 5) * 5
    high = max(low + 5, math.ceil(max(run["best"] for run in done) / 5) * 5)
    dots = [
        Dot(
            round(_MARGIN + (_WIDTH - 2 * _MARGIN) * run["macs"] / most, 1),
            round(_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (run["best"] - low) / (high - low), 1),
            f"{run['row']}, seed {run['seed']}: {run['best']:.2f} % ({run['data']}), {run['macs']:.2f} GMACs",
            run["href"],
        )
        for run in done
    ]
    return dots, (0.0, float(low)), (most, float(high))


def _figures(folder: Path, section: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """A section's figures as the page holds them: picture, words, and the PDF that it leads to."""
    for stem in section["figures"]:
        picture = folder / f"{stem}.svg"
        if picture.is_file():
            encoded = base64.b64encode(picture.read_bytes()).decode()
            caption = _CAPTIONS.get(stem.removeprefix(f"{section['table']}_"), f"{stem}: accuracy against MACs")
            yield {"address": f"data:image/svg+xml;base64,{encoded}", "caption": caption, "pdf": f"{stem}.pdf"}


_CAPTIONS = {
    "masks": "Masks over training: churn, weights and units ever active, density of each layer",
    "sparsity": "Accuracy against sparsity of the weights; bars are standard deviations over seeds",
    "cost": "What is saved and what it does to accuracy, against the dense model of the same backbone",
    "curves": "Accuracy over training, mean over seeds",
    "layers": "Density of each layer over training",
    "heads": "Heads left in each layer",
    "tokens": "Patches that are kept; what is dropped is hatched",
    "interpretation": "Where the model looks: patches that each stage leaves, and heat maps; the object is outlined",
}


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
