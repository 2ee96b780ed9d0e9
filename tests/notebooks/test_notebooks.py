"""The notebooks: committed executed, small, with nothing of a machine in them, and they run on fresh records."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_records import write_record

from repro.errors import UserError
from repro.notebook import open_report
from repro.report.claims import claims_of
from repro.tables.loader import load_table, table_names

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
    claims = [claim for name in table_names() for claim in claims_of(load_table(name))]
    own = {claim.statement for claim in claims if claim.table == "table1"}
    assert own
    assert {claim.statement for claim in claims if claim.statement in words} == own


def shown(path: Path) -> list[str]:
    """The words of each output, in order."""
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    return ["".join(output["data"]["text/plain"]) for output in outputs if "text/plain" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_asks_a_question_and_answers_it_first(path: Path) -> None:
    """The title is a question; the first output is the answer, in sentences; imports take one line."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[0]["source"]).splitlines()[0].endswith("?")
    answer = code_cells(path)[1]["outputs"][0]["data"]["text/markdown"]
    assert all(line.startswith("- ") and line.endswith(".") for line in "".join(answer).splitlines())
    imports = [line for cell in code_cells(path) for line in cell["source"] if "import " in line]
    assert len(imports) == 1
    assert imports[0].startswith("from repro.notebook import ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pictures_have_150_dots_per_inch(path: Path) -> None:
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    pictures = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output["data"]]
    assert pictures
    for picture in pictures:
        assert int.from_bytes(picture[16:20], "big") == 5.5 * 150  # a PNG's width in its header


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
    answer, gains, _, curves = shown(tmp_path / "executed" / "comparing_runs.ipynb")
    assert re.match(r"[012] of 2 differences to the dense model are decided at 95 %\.", answer)
    for name in ("svite-30", "s2vite-40"):
        assert f"deit_small/{name}" in gains
        assert f"deit_small/{name} seed 0" in curves


def test_a_report_in_a_notebook(tmp_path: Path) -> None:
    table = load_table("table1")
    for id_, by_seed in {"deit_tiny/dense": (90.0, 90.5, 91.0), "deit_tiny/svite-30": (60.0, 60.5, 61.2)}.items():
        (row,) = table.select([id_])
        for seed, top1 in enumerate(by_seed):
            write_record(tmp_path, row, "local", seed, top1_best_pct=top1)
    report = open_report("table1", ["deit_tiny/dense", "deit_tiny/svite-30"], "local", [0, 1, 2], tmp_path)
    assert report.gains_in_words == (
        "1 of 1 difference to the dense model is decided at 95 %.",
        "Less accurate: deit_tiny/svite-30 (-29.9) points.",
    )
    assert report.gains.loc["deit_tiny/svite-30", "pairs"] == 3
    assert report.conclusion == tuple(report.view.summary.lines)
    assert report.mask_updates == ("No finished run has moved a mask.",)
    png, size = report.figure("table1_local")._repr_png_()  # type: ignore[union-attr]
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 660}
    assert "make figures TABLE=table1 SCALE=local" in str(report.figure("table1_heads"))
    with pytest.raises(UserError, match="no figure 'table1_head'; nearest: table1_heads"):
        report.figure("table1_head")


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_curves_are_those_of_the_records(tmp_path: Path, scale: str) -> None:
    (row,) = load_table("table1").select(["deit_tiny/dense"])
    for seed in (0, 1):
        record = write_record(tmp_path, row, scale, seed)
        entries = [{"kind": "eval", "update": n, "epoch": n, "top1_pct": 50.04 + n + seed} for n in (1, 2)]
        record.metrics_file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    curves = open_report("table1", [row.id], scale, [0, 1], tmp_path).curves
    assert curves.to_dict() == {f"{row.id} seed {seed}": {1.0: 51.0 + seed, 2.0: 52.0 + seed} for seed in (0, 1)}


def test_a_report_without_gains_says_so(tmp_path: Path) -> None:
    report = open_report("table1", ["deit_tiny/*"], "local", [0], tmp_path)
    assert report.gains.empty
    assert report.gains_in_words == ("0 of 0 differences to the dense model are decided at 95 %.",)


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_gains_are_those_of_either_training(tmp_path: Path, scale: str) -> None:
    (dense, sparse) = load_table("table1").select(["deit_tiny/dense", "deit_tiny/svite-30"])
    for row, top1 in ((dense, 70.0), (sparse, 71.5)):
        write_record(tmp_path, row, scale, 0, top1_best_pct=top1)
    gains = open_report("table1", [dense.id, sparse.id], scale, [0], tmp_path).gains
    assert list(gains.index) == [sparse.id]
    assert gains.loc[sparse.id, "gain"] == 1.5
    assert gains.dtypes.astype(str).to_dict() == {
        **{"pairs": "int64", "gain": "float64", "95 % from": "float64", "95 % to": "float64"},
        "decided": "bool",
    }
