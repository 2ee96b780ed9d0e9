"""A page with many runs, one of which has a name full of markup, without a record for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.files import write_json
from repro.report.build import view_of
from repro.report.folders import report_folder
from repro.report.page import SCHEMA, section_html, write_index
from repro.tables.loader import load_table

NASTY = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> & \"'"


def many_runs(number: int) -> list[dict[str, Any]]:
    """Return finished runs, the first of them with a name full of markup."""
    run: dict[str, Any] = {"seed": 0, "state": "done", "last": 1.0, "data": "digits", "commit": "c", "reason": ""}
    runs = [
        {**run, "row": f"r/{n}", "best": n / 100, "macs": 1 + n / 1000, "href": f"runs/r{n}/", "wandb": ""}
        for n in range(number)
    ]
    return [{**runs[0], "row": NASTY, "reason": NASTY}, *runs[1:]]


def write_many(folder: Path, number: int) -> Path:
    """Write the page of table 1 with `number` runs; return its path."""
    table = load_table("table1")
    seen = view_of(table, table.rows, "local", [0], folder)
    runs = many_runs(number)
    about = {"schema": SCHEMA, "table": table.name, "scale": "local", "runs": runs}
    about |= {"tone": seen.summary.tone, "overview": seen.summary.overview, "html": section_html(seen, runs, None)}
    write_json(report_folder(folder, table.name, "local") / "section.json", about)
    return write_index(folder)
