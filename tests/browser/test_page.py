"""`reports/index.html` in a real headless Chromium: it runs, sorts, filters, escapes, and asks nobody for anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from needs import needs

from repro.report.collect import gather
from repro.report.page import run_lines, write_page
from repro.rows import Table, load_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = needs("chromium", CHROMIUM, "REPRO_REQUIRE_BROWSER")
NASTY = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> & \"'"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table("table1")


@pytest.fixture(scope="module")
def page(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with 5,000 runs, the first of them with a name full of markup."""
    folder = tmp_path_factory.mktemp("page")
    frame, every = gather(table, table.rows, "local", [0], folder)
    path = write_page(frame, table, every, None, [], folder)
    assert run_lines(frame, every, folder) == []
    run: dict[str, Any] = {"seed": 0, "state": "done", "last": 1.0, "macs": 1.0, "data": "digits", "commit": "c"}
    runs = [{**run, "row": f"r/{n}", "best": n / 100, "reason": "", "href": "x/"} for n in range(4999)]
    runs.insert(0, {**run, "row": NASTY, "best": None, "reason": NASTY, "href": "x/"})
    text = path.read_text(encoding="utf-8")
    data = json.dumps(runs).replace("<", "\\u003c")
    path.write_text(text.replace('id="run-data">[]', f'id="run-data">{data}'), encoding="utf-8")
    return path


def dom(path: Path, tmp_path: Path, script: str = "") -> str:
    """The page as it is after its own scripts, and one more, have run."""
    assert CHROMIUM is not None
    probe = tmp_path / "probe.html"
    text = path.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>")
    probe.write_text(text, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_it_shows_all_rows_and_a_part_of_5000_runs(page: Path, tmp_path: Path) -> None:
    found = dom(page, tmp_path)
    assert "42 of 42 rows</output>" in found
    assert "200 shown, 5000 match, 5000 runs</output>" in found
    assert "<title>Sparse vision transformers" in found
    body = found[found.index('id="run-table"') :]
    assert "&lt;/script&gt;&lt;script&gt;document.title" in body
    assert 'onerror="' not in found


def test_it_filters_and_sorts(page: Path, tmp_path: Path) -> None:
    script = """
    const box = document.getElementById("table-filter");
    box.value = "deit_tiny s2vite";
    box.dispatchEvent(new Event("input"));
    document.querySelectorAll("#rows thead button")[1].click();
    document.querySelectorAll("#rows thead button")[1].click();
    const best = document.querySelector("#run-table button[data-key=best]");
    best.click(); best.click();
    document.getElementById("more").click();
    const first = document.querySelector("#run-table tbody tr").textContent;
    const rows = [...document.querySelectorAll("#rows tbody tr")].map(line => line.cells[0].textContent);
    const probe = document.createElement("pre");
    probe.id = "probe";
    probe.textContent = JSON.stringify([first, rows[0], rows.length]);
    document.body.append(probe);
    """
    found = dom(page, tmp_path, script)
    assert "1 of 42 rows</output>" in found
    assert "400 shown, 5000 match, 5000 runs</output>" in found
    probe = found[found.index('id="probe"') :]
    assert "r/4998" in probe
    assert '"deit_base/dense",42' in probe
    assert 'aria-sort="descending"' in found


def test_it_needs_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"https?://", re.sub(r"<li>.*?</li>|<dd>.*?</dd>", "", text))
    assert not re.search(r"@import|url\(|<link rel=\"stylesheet|src=\"(?!data:)", text)
    assert "prefers-color-scheme: dark" in text
