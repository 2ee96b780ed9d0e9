"""How long `reports/index.html` with 5,000 runs takes to open and to respond, in Debian's Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, milliseconds
from benchmarks.many_runs import write_many

RUNS, ROUNDS = 5000, 7
LONGEST_S = 0.1  # what feels immediate (Nielsen, "Usability Engineering", 1993, 5.5)
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
# From the action to the frame that shows it.
_TIMED = """async action => {
  const started = performance.now();
  new Function(action)();
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - started;
}"""
_ACTIONS = {
    "filter the runs": "const b = document.getElementById('run-filter'); b.value = 'r/4' + Math.random();"
    " b.dispatchEvent(new Event('input')); b.value = 'digits'; b.dispatchEvent(new Event('input'));",
    "sort the runs": "document.querySelector('#run-table button[data-key=best]').click()",
    "sort the table": "document.querySelectorAll('table.rows thead button')[1].click()",
}


def page() -> list[Figure]:
    """Time opening the page and each action on it."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        return [Figure(f"page with {RUNS:,} runs", "–", "not measured: there is no chromium", None, {})]
    from playwright.sync_api import sync_playwright

    opened, waits = [], {name: [] for name in _ACTIONS}  # type: tuple[list[float], dict[str, list[float]]]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = write_many(Path(folder), RUNS)
        browser = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        for _ in range(ROUNDS):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            opened.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
            for name, action in _ACTIONS.items():
                waits[name].append(tab.evaluate(_TIMED, action) / 1000)
            tab.close()
        browser.close()
    first = Figure(
        f"page with {RUNS:,} runs: open",
        "–",
        f"{1000 * statistics.median(opened):.0f} ms",
        None,
        {"opened_ms": milliseconds(opened)},
    )
    return [first, *(_figure(name, seconds) for name, seconds in waits.items())]


def _figure(name: str, seconds: list[float]) -> Figure:
    median = statistics.median(seconds)
    target = f"at most {1000 * LONGEST_S:g} ms"
    details = {"waits_ms": milliseconds(seconds)}
    return Figure(f"page with {RUNS:,} runs: {name}", target, f"{1000 * median:.0f} ms", median <= LONGEST_S, details)
