"""`reports/index.html`: one page that holds a table, its claims, figures, card and runs, and asks no server."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from repro.report.card import Card
from repro.report.evidence import Evidence
from repro.report.figures import counted_macs_g
from repro.report.view import CLAIM_HEADS, view
from repro.rows import Table, table_names
from repro.runs.files import write_text

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_WIDTH, _HEIGHT, _MARGIN = 720, 300, 44


@dataclass(frozen=True)
class Dot:
    """A finished run in the page's plot: where it is, in SVG units, and what is said of it."""

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
) -> Path:
    """Write `<folder>/index.html`; returns its path.

    Args:
        every: the evidence behind the frame's lines; its runs are listed and plotted.
        card: None where no run is finished.
        figures: what was drawn; the SVGs among them are held by the page itself.
    """
    runs = run_lines(frame, every, folder)
    dots, low, high = _dots(runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True
    )
    others = [name for name in table_names() if name != table.name and (folder / name / f"{name}.html").is_file()]
    text = environment.get_template("index.html").render(
        seen=view(frame, table, overrides),
        table=table,
        claim_heads=CLAIM_HEADS,
        card=card,
        figures=[(path.stem, _inline(path)) for path in figures if path.suffix == ".svg"],
        others=others,
        # A closing tag inside a string would end the script: no `<` is left in the data.
        runs=json.dumps(runs, allow_nan=False).replace("<", "\\u003c"),
        n_runs=len(runs),
        dots=dots,
        axis={"low": low, "high": high, "width": _WIDTH, "height": _HEIGHT, "margin": _MARGIN},
    )
    path = folder / "index.html"
    write_text(path, text)
    return path


def run_lines(frame: pd.DataFrame, every: Sequence[Evidence], folder: Path) -> list[dict[str, Any]]:
    """Every run there is a record of, as JSON values; links are relative to `folder`."""
    lines: list[dict[str, Any]] = []
    for line, evidence in zip(frame.to_dict("records"), every, strict=True):
        for seed, run in evidence.runs.items():
            if run.path is None:
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
                    "data": evidence.config.data.name,
                    "commit": run.commit,
                    "reason": run.reason,
                    "href": Path(os.path.relpath(run.path, folder)).as_posix() + "/",
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


def _inline(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
