"""A page with many runs and one whose name is full of markup, made without a record for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.paper_tables import load_table
from repro.report.collect import gather
from repro.report.page import SCHEMA, section_file, section_html, write_index
from repro.runs.files import write_json

NASTY = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> & \"'"


def many_runs(number: int) -> list[dict[str, Any]]:
    """Finished runs, the first of them named by somebody who means harm."""
    run: dict[str, Any] = {"seed": 0, "state": "done", "last": 1.0, "data": "digits", "commit": "c", "reason": ""}
    runs = [
        {**run, "row": f"r/{n}", "best": n / 100, "macs": 1 + n / 1000, "href": f"runs/r{n}/"} for n in range(number)
    ]
    return [{**runs[0], "row": NASTY, "reason": NASTY}, *runs[1:]]


def write_many(folder: Path, number: int) -> Path:
    """The page of table 1 with `number` runs; returns its path."""
    table = load_table("table1")
    frame, _ = gather(table, table.rows, "local", [0], folder)
    runs = many_runs(number)
    section = {"schema": SCHEMA, "table": table.name, "title": table.title, "figures": [], "runs": runs}
    write_json(section_file(folder, table.name), {**section, "html": section_html(frame, table, runs, None)})
    return write_index(folder)
