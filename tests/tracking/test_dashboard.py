"""The object tree of a table's workspace and report against a golden file, and the way to the server and back.

A change that is meant: REPRO_UPDATE_GOLDEN=1 pytest tests/tracking/test_dashboard.py, and look at the difference.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loopback import KEY, serving
from mirrored import bytes_below, new_record, write_run

from repro.cli import main
from repro.paper_tables import load_table
from repro.signature import signatures
from repro.tracking.dashboard import specification
from repro.tracking.report_page import build_report
from repro.tracking.workspace import build_workspace

GOLDEN = Path(__file__).parent / "golden" / "dashboard.json"
TABLE = load_table("table1")
ROWS = TABLE.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_small/s2vite-40"])
SIGNATURES = {row.id: [f"{row.id}, seed {seed}" for seed in (0, 1)] for row in ROWS}


def without_random_ids(value: Any) -> Any:
    """wandb-workspaces draws ids at random."""
    if isinstance(value, dict):
        return {
            key: "*" if key in ("id", "__id__") and isinstance(child, str) else without_random_ids(child)
            for key, child in value.items()
        }
    return [without_random_ids(child) for child in value] if isinstance(value, list) else value


def signature_filters(value: Any) -> list[list[str]]:
    """The signatures that each filter of an object tree lets through, in its order."""
    if isinstance(value, dict):
        own = [value["value"]] if value.get("key") == {"section": "config", "name": "signature"} else []
        assert not own or value["op"] == "IN"
        return own + [found for child in value.values() for found in signature_filters(child)]
    return [found for child in value for found in signature_filters(child)] if isinstance(value, list) else []


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_the_object_tree(scale: str) -> None:
    frame = pd.DataFrame({f"{metric}_verdict": ["reproduced", "missing", "missing"] for metric in TABLE.metrics})
    urls = {"deit_tiny/dense": ["http://w/me/proj/runs/one", "http://w/me/proj/runs/two"]}
    seen = specification(
        build_workspace(TABLE, ROWS, scale, SIGNATURES, "me", "proj"),
        build_report(TABLE, ROWS, scale, frame, "| the | table |", SIGNATURES, urls, "me", "proj"),
    )
    seen = without_random_ids(json.loads(json.dumps(seen)))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("REPRO_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({**golden, scale: seen}, indent=1, sort_keys=True) + "\n")
    else:
        assert seen == golden[scale]
    # Every curve, chart and list is of the chosen runs alone, in the report's sections those of one backbone.
    every = [one for of_row in SIGNATURES.values() for one in of_row]
    assert signature_filters(seen["workspace"]) == [every]
    assert signature_filters(seen["report"]) == [every, every[:4], every[4:], every]
    # A structured row has curves too.
    assert {"sparsity/heads_density", "sparsity/neurons_ever_active"} <= set(
        re.findall(r"sparsity/\w+", json.dumps(seen))
    )
    assert ("system/.*" in json.dumps(seen)) == (scale == "paper")
    # Whatever else changes: an accuracy of another scale is on no axis that says it is the published one.
    axes = re.findall(r'"(?:summary:)?((?:result|eval|deit_\w+)/top1\w*)"', json.dumps(seen))
    assert bool(axes) == (scale == "paper")


def test_offline_a_file_says_how_to_publish_it_and_is_published_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, config = new_record(tmp_path / "runs", "tracker=none")
    write_run(record, config, range(1, 3))
    words = ["table1", "deit_small/svite_plus-5-50", "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main(["wandb", "dashboard", *words, "--reports", str(tmp_path / "reports")])
    assert ended.value.code == 0
    path = tmp_path / "reports" / "table1" / "table1.wandb.json"
    assert f"repro wandb publish {path}" in capsys.readouterr().out
    written = json.loads(path.read_text())
    text = json.dumps(written)
    # Of all runs of the row only the table's own: of its seeds, with the config that the command describes.
    wanted = signatures(config, range(TABLE.default_seeds("smoke")))
    assert signature_filters(written["workspace"]) == [list(wanted.values())]
    assert wanted[0] == config.signature
    assert "FLOPs saving (%)" in text  # the table itself, with its verdicts
    assert "other scale" in text
    assert "not on W&B; `repro wandb push table1`" in text
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(["wandb", "publish", str(path), "--project", "proj"])
        assert ended.value.code == 0
        workspace, report = server.views
    assert workspace["entityName"] == report["entityName"] == "me"
    assert json.loads(workspace["spec"])["section"] == written["workspace"]["spec"]["section"]
    assert len(json.loads(report["spec"])["blocks"]) == len(written["report"]["spec"]["blocks"])
    said = capsys.readouterr().out
    assert "workspace http://127.0.0.1" in said
    assert "report http://127.0.0.1" in said
    assert KEY.encode() not in bytes_below(tmp_path / "reports")


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(SystemExit) as ended:
        main(["wandb", "publish", str(path)])
    assert ended.value.code == 2
    assert "not a specification" in capsys.readouterr().err
