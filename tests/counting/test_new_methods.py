"""A new method brings its cost model and its file of conf/method, and is counted, checked and planned with no other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repro.config.compose import compose

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).with_name("new_methods")

SCRIPT = """
import json, sys
from dataclasses import asdict, replace
from pathlib import Path
from repro.config.compose import compose
from repro.config.costs import faster_by, row_cost, why_untimed
from repro.errors import UserError
from repro.launch.plan import plan
from repro.tables.loader import load_table

PAPER = ("data.root=/data",)
WRONG = {"token_merging": "method.tokens.merged_per_block=17", "low_rank": "method.weights.rank_share=2"}
found = {}
for name, wrong in WRONG.items():
    table = load_table("table1")
    row = replace(table.rows[0], id=f"deit_small/{name}", backbone="deit_small", method=name, published=())
    (run,) = plan(table, [row], "paper", [0], Path("runs"), PAPER)
    try:
        compose([*row.overrides_at("paper"), *PAPER, wrong])
        error = ""
    except UserError as failure:
        error = str(failure)
    found[name] = {
        **asdict(row_cost(run.config)), "faster_by": faster_by(run.config.method),
        "why_untimed": why_untimed(run.config.method), "record": str(run.record.path), "state": run.state,
        "error": error,
    }
assert "torch" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "conf" / "method").mkdir(parents=True)
    for file in FILES.glob("*.yaml"):
        shutil.copy(file, folder / "conf" / "method")
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{FILES}", "REPRO_PATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    values: dict[str, dict[str, Any]] = json.loads(output)
    return values


DENSE = compose(["backbone=deit_small"]).backbone.paper.dense_model()


def test_token_merging_is_counted(found: dict[str, dict[str, Any]]) -> None:
    entering = [197 - 8 * block for block in range(12)]
    saved = sum((197 - count) * 4 * 384**2 + (197 - count + 8) * 8 * 384**2 for count in entering)
    saved += sum(2 * 384 * (197**2 - count**2) for count in entering)
    added = sum((count // 2) * (count - count // 2) * 384 for count in entering)
    cost = found["token_merging"]
    assert cost["params_m"] * 1e6 == pytest.approx(DENSE.params)
    assert cost["macs_g"] * 1e9 == pytest.approx(DENSE.macs - saved + added)
    assert cost["flops_saving_pct"] == pytest.approx(100 * (saved - added) / DENSE.macs)
    assert cost["physical_saving_pct"] == pytest.approx(cost["flops_saving_pct"])
    assert cost["is_exact"]
    assert (cost["faster_by"], cost["why_untimed"]) == ("8 tokens merged in each block", "")
    assert cost["error"] == "config: method.tokens.merged_per_block=17: leaves -7 tokens"


def test_low_rank_factors_are_counted(found: dict[str, dict[str, Any]]) -> None:
    saved = 24 * (384 * 1536 - 96 * (384 + 1536))
    cost = found["low_rank"]
    assert cost["params_m"] * 1e6 == pytest.approx(DENSE.params - saved)
    assert cost["macs_g"] * 1e9 == pytest.approx(DENSE.macs - 197 * saved)
    assert cost["physical_saving_pct"] == pytest.approx(100 * 197 * saved / DENSE.macs), (
        "factors run as they are counted"
    )
    assert cost["error"] == "config: method.weights.rank_share=2: must be at least 0 and at most 1"


@pytest.mark.parametrize("method", ["token_merging", "low_rank"])
def test_a_method_without_a_class_is_planned_and_not_run(found: dict[str, dict[str, Any]], method: str) -> None:
    assert found[method]["record"].startswith(f"runs/table1/deit_small/{method}/paper/seed0-")
    assert found[method]["state"] == "missing"
