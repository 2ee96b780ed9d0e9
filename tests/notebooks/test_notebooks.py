"""The notebooks: committed executed, small, with nothing of a machine in them, and they run on fresh records."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repro.report.claims import load_claims

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_executed_small_and_of_no_machine(path: Path) -> None:
    assert path.stat().st_size < 300_000
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 3
    assert not any(output["output_type"] in ("error", "stream") for output in outputs)
    words = json.dumps([output for output in outputs if "image/png" not in output.get("data", {})])
    assert not re.search(r"/(home|root|work|tmp|usr)/", words)


def test_the_committed_verdicts_are_on_the_claims_of_their_table() -> None:
    """Stale otherwise: `make notebooks` executes them again."""
    (path,) = (path for path in NOTEBOOKS if path.stem == "table_and_verdicts")
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    words = html.unescape("\n".join("".join(output.get("data", {}).get("text/html", [])) for output in outputs))
    claims = load_claims()
    own = {claim.statement for claim in claims if claim.table == "table1"}
    assert own
    assert {claim.statement for claim in claims if claim.statement in words} == own


def shown(path: Path) -> list[str]:
    """The words of each output, in order."""
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    return ["".join(output["data"]["text/plain"]) for output in outputs if "text/plain" in output.get("data", {})]


def test_they_run_on_fresh_records(tmp_path: Path) -> None:
    assert len(NOTEBOOKS) == 3
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPRO_SCALE": "smoke", "REPRO_RUNS": "runs"}

    def run(*arguments: str, **settings: str) -> None:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **settings},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    run("repro", "launch", "table1", "deit_small/dense deit_small/svite-30 deit_small/s2vite-40", "--scale", "smoke")
    run("notebooks", "--out", "executed")
    executed = sorted((tmp_path / "executed").glob("*.ipynb"))
    assert [path.name for path in executed] == [path.name for path in NOTEBOOKS]
    assert all(cell["execution_count"] for path in executed for cell in code_cells(path))
    # Runs are compared from W&B's own files, then from the records: the same table both times.
    run("notebooks", "comparing_runs", "--out", "again", REPRO_FROM="records")
    mirrored, differences, results, checked, curves = shown(tmp_path / "executed" / "comparing_runs.ipynb")
    from_records = shown(tmp_path / "again" / "comparing_runs.ipynb")
    assert [name for name in ("dense", "svite-30", "s2vite-40") if f"table1-deit_small-{name}" not in mirrored] == []
    assert "Empty DataFrame" in from_records[0]
    assert from_records[1:3] == [differences, results]
    assert [line.split()[-1] for line in checked.splitlines()[1:]] == ["0", "0", "0"]
    assert curves.splitlines()[2:] == from_records[4].splitlines()[2:]
