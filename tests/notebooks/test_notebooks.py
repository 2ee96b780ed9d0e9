"""The notebooks: committed executed, small, with nothing of a machine in them, and they run on fresh records."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


def test_they_run_on_fresh_records(tmp_path: Path) -> None:
    assert len(NOTEBOOKS) == 3
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REPRO_SCALE": "smoke", "REPRO_RUNS": "runs"}
    rows = "deit_small/dense deit_small/svite-30 deit_small/s2vite-40"
    for arguments in (["repro", "launch", "table1", rows, "--scale", "smoke"], ["notebooks", "--out", "executed"]):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    executed = sorted((tmp_path / "executed").glob("*.ipynb"))
    assert [path.name for path in executed] == [path.name for path in NOTEBOOKS]
    assert all(cell["execution_count"] for path in executed for cell in code_cells(path))
