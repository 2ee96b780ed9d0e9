"""Write the files of a table from a view: CSV, Markdown, LaTeX, HTML and the summary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from repro.errors import count_of
from repro.files import write_json, write_text
from repro.report import escaping
from repro.report.cells import Results
from repro.report.fitting import latex_grid, short_name
from repro.report.format import source_url, tone
from repro.report.frame import frame_of
from repro.report.view import View

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_LATEX_SYNTAX = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


def write_tables(seen: View, folder: Path, links: Mapping[str, Sequence[str]], *, is_wide: bool = False) -> list[Path]:
    """Write `<table>.csv`, `.md`, `.tex`, `.html` and `summary.json` into `folder`; return their paths.

    `links` are the W&B URLs of each row's runs; `is_wide` includes every column in the Markdown table.
    """
    name = seen.results.table.name
    written = []
    for ending, text in (
        ("csv", csv_text(seen.results)),
        ("md", markdown_text(seen, is_wide=is_wide)),
        ("tex", latex_text(seen)),
        ("html", html_text(seen, links)),
    ):
        path = folder / f"{name}.{ending}"
        write_text(path, text, durable=False)
        written.append(path)
    write_json(folder / "summary.json", seen.summary.as_json(), durable=False)
    return [*written, folder / "summary.json"]


def csv_text(results: Results) -> str:
    """Return the frame as CSV: numbers with ten significant digits, missing values as empty fields."""
    return frame_of(results).to_csv(index=False, lineterminator="\n", float_format="%.10g")


def markdown_text(seen: View, *, is_wide: bool = False) -> str:
    """Return the view as GitHub-flavored Markdown."""
    grids = seen.wide if is_wide else seen.compact
    return markdown_environment().get_template("table.md").render(seen=seen, grids=grids, is_compact=not is_wide)


def latex_text(seen: View) -> str:
    """Return the compact view as a LaTeX document, in the text width of a NeurIPS page."""
    environment = _environment(finalize=escaping.latex, **_LATEX_SYNTAX)
    grids = [latex_grid(grid) for grid in seen.compact]
    return environment.get_template("table.tex").render(seen=seen, grids=grids, short_name=short_name)


def html_text(seen: View, links: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the view as a self-contained HTML page."""
    name = seen.results.table.name
    return html_environment().get_template("table.html").render(seen=seen, ids=name, links=links or {})


def markdown_environment() -> jinja2.Environment:
    """Return the environment of the Markdown templates, which escapes every value."""
    return _environment(finalize=escaping.markdown)


@functools.cache
def html_environment() -> jinja2.Environment:
    """Return the environment of the HTML templates, which escapes every value."""
    environment = _environment(autoescape=True)
    environment.globals |= {"tone": tone, "source_url": source_url}
    return environment


def _environment(finalize: Callable[[Any], str] | None = None, **options: Any) -> jinja2.Environment:
    # `finalize` is applied to every value that a template prints, so no template can forget to escape one.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters["count_of"] = count_of
    return environment
