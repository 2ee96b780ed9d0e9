"""The object tree of a table's workspace and report, compared with a golden file, and publishing to a server.

After an intended change, run `REPRO_UPDATE_GOLDEN=1 pytest tests/tracking/test_dashboard.py` and review the diff.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from loopback import KEY, serving
from mirrored import bytes_below, new_record, repro, use, write_run
from PIL import Image

from repro.cli.main import main
from repro.config.compose import compose
from repro.config.signature import signatures
from repro.dashboards.dashboard import default_entity, page_models
from repro.dashboards.report_page import build_report
from repro.dashboards.report_run import publish_summaries
from repro.dashboards.workspace import build_workspace
from repro.errors import UserError
from repro.report.collect import collect_results
from repro.runs.record import record_for
from repro.tables.loader import load_table
from repro.tracking.metric_names import digest
from repro.tracking.mirror_file import Mirror, write_mirror
from repro.tracking.wandb_run import default_run_id
from repro.training.attempt import EXIT_DONE, execute

GOLDEN = Path(__file__).parent / "golden" / "dashboard.json"
TABLE = load_table("table1")
ROWS = TABLE.select(["deit_tiny/dense", "deit_tiny/svite-30", "deit_small/s2vite-40"])
FIGURES = ["figures/table1_curves", "figures/table1_heads", "figures/table1_layers"]


def without_random_ids(value: Any) -> Any:
    """Mask the ids, which wandb-workspaces generates randomly."""
    if isinstance(value, dict):
        return {
            key: "*" if key in ("id", "__id__") and isinstance(child, str) else without_random_ids(child)
            for key, child in value.items()
        }
    return [without_random_ids(child) for child in value] if isinstance(value, list) else value


def signature_filters(value: Any) -> list[list[str]]:
    """Return the signatures that each filter of an object tree accepts, in order."""
    if isinstance(value, dict):
        own = [value["value"]] if value.get("key") == {"section": "config", "name": "signature"} else []
        assert not own or value["op"] == "IN"
        return own + [found for child in value.values() for found in signature_filters(child)]
    return [found for child in value for found in signature_filters(child)] if isinstance(value, list) else []


@pytest.mark.parametrize("scale", ["local", "paper"])
def test_the_object_tree(scale: str, tmp_path: Path) -> None:
    summary = ["Counted: 41 of 42 published values hold, 1 does not."]
    results = collect_results(TABLE, ROWS, scale, [0, 1], tmp_path)
    runs = [(row.row.id, seed, run) for row in results.rows for seed, run in row.evidence.runs.items()]
    for name, (_, _, run) in zip(("one", "two"), runs, strict=False):
        run.record.path.mkdir(parents=True)
        write_mirror(run.record.path, Mirror("current", "online", name, f"http://w/me/proj/runs/{name}"))
    pages = page_models(
        build_workspace(results, "me", "proj"), build_report(results, summary, "| the | table |", FIGURES, "me", "proj")
    )
    text = json.dumps(pages)
    every = [f"{row}, seed {seed}" for row, seed, _ in runs]
    for name, (_, _, run) in zip(every, runs, strict=True):
        text = text.replace(run.signature, name)
    seen = without_random_ids(json.loads(text))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("REPRO_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({**golden, scale: seen}, indent=1, sort_keys=True) + "\n")
    else:
        assert seen == golden[scale]
    # All curves, charts and lists contain only the chosen runs; sections of the report, only those of one backbone.
    assert signature_filters(seen["workspace"]) == [every]
    assert signature_filters(seen["report"]) == [every, every[:4], every[4:], every]
    # Structured rows have curves, too.
    assert {"sparsity/heads_density", "sparsity/neurons_ever_active"} <= set(
        re.findall(r"sparsity/\w+", json.dumps(seen))
    )
    assert ("system/.*" in json.dumps(seen)) == (scale == "paper")
    # In any case, accuracies of another scale must not be on an axis of published accuracies.
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
    path = tmp_path / "reports" / "table1" / "smoke" / "table1.wandb.json"
    assert f"repro wandb publish {path}" in capsys.readouterr().out
    written = json.loads(path.read_text())
    text = json.dumps(written)
    # Of all runs of the row, only those of the table: with its seeds and the config that the command describes.
    wanted = signatures(config, range(TABLE.default_seeds("smoke")))
    assert signature_filters(written["workspace"]) == [list(wanted.values())]
    assert wanted[0] == config.signature
    assert "FLOPs saving (%)" in text  # the table itself, with its verdicts
    assert "other scale" in text
    assert "Counted: " in text
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


def test_a_dashboard_that_is_published_twice_is_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workspace, report, the run with the table and its figures, and verdicts and gains in the runs' summaries."""
    runs, folder = tmp_path / "runs", tmp_path / "reports" / "table1" / "smoke"
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "table1_heads.png")
    records = []
    for row in TABLE.select(["deit_small/dense", "deit_small/s2vite-40"]):
        config = compose([*row.overrides, "scale=smoke", "tracker=none"])
        record = record_for(runs, config, "table1", row.id)
        record.create(config, "table1", row.id)
        assert execute(record.path, log=lambda _: None) == EXIT_DONE
        records.append(record)
    words = ["deit_small/dense", "deit_small/s2vite-40", "--scale", "smoke", "--seeds", "1", "--project", "me/proj"]
    command = ["dashboard", "table1", *words, "--runs", str(runs), "--reports", str(tmp_path / "reports")]
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", "table1", "--runs", str(runs), "--project", "me/proj") == 0
        for _ in range(2):
            assert repro(*command) == 0
        ids = [view.get("id") for view in server.views]
        assert ids == [None, None, "view1", "view2"], "the second time they are updated"
        report = server.runs["proj/report-table1-smoke"]
        (dense, sparse) = (server.runs[f"proj/{default_run_id(record.about())}"] for record in records)
        assert not server.unknown
    assert len(report.history) == 2
    assert {"table", "figures/table1_heads"} <= report.history[-1].keys()
    assert report.exit_code == 0
    assert any(name.startswith("media/images/figures/table1_heads") for name in report.files)
    tables = [stored for stored in server.artifacts.stored if "table" in stored.name]
    content = json.loads(next(iter(tables[-1].files.values())))
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    assert [row["row"] for row in rows] == ["deit_small/dense", "deit_small/s2vite-40"]
    assert rows[1]["params_m_verdict"] == sparse.summary["verdict/params_m"] == "reproduced"
    assert sparse.summary["verdict/top1_pct"] == "other scale"
    results = [record.result() or {} for record in records]
    gain = results[1]["top1_best_pct"] - results[0]["top1_best_pct"]
    assert sparse.summary["gain/local_top1_pct"] == pytest.approx(gain)
    assert dense.summary["record/result_sha256"] == digest(results[0]), "and the rest stays"
    params = ["cost/params_m", "published/params_m", "verdict/params_m"]
    assert sorted(name for name in sparse.summary if name.endswith("params_m")) == params
    assert not [name for name in sparse.summary if name.startswith("result/density")]
    out = capsys.readouterr().out
    assert "table http://127.0.0.1" in out


def test_a_run_that_was_deleted_on_the_server_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = new_record(tmp_path / "runs", "tracker=none")
    write_run(record, config, range(1, 3))
    run_id = default_run_id(record.about())
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", str(record.path), "--project", "me/proj") == 0
        verdict = {"verdict/params_m": "reproduced"}
        (line,) = publish_summaries({"me/proj/deleted": verdict, f"me/proj/{run_id}": verdict})
        assert line.startswith("no verdicts written to me/proj/deleted (")
        assert server.runs[f"proj/{run_id}"].summary["verdict/params_m"] == "reproduced"


def test_an_account_without_a_default_entity_has_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        use(monkeypatch, server)
        server.entity = None
        with pytest.raises(UserError, match="no default entity; name one: --project ENTITY/PROJECT"):
            default_entity()


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(SystemExit) as ended:
        main(["wandb", "publish", str(path)])
    assert ended.value.code == 2
    assert "damaged ([] where an object should be); remove it" in capsys.readouterr().err
