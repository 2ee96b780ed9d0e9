"""The mirror with the real client: offline files are read with the client's own reader, online runs from a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from loopback import KEY, serving
from mirrored import (
    ROW,
    bytes_below,
    eval_entry,
    history_of,
    new_record,
    offline_segments,
    read_back,
    train_entry,
    write_run,
)

from repro.config.compose import compose
from repro.runs.record import record_for
from repro.tables.loader import load_table
from repro.tracking.metric_names import step_of
from repro.tracking.mirror_file import read_mirror
from repro.tracking.sinks import open_sinks
from repro.tracking.wandb_project import WandbProject, choose_project
from repro.tracking.wandb_run import default_run_id
from repro.training.attempt import EXIT_DONE, execute


def test_offline_run_holds_what_the_record_holds(tmp_path: Path) -> None:
    record, config = new_record(tmp_path / "runs with space")
    write_run(record, config, range(1, 9))
    (segment,) = offline_segments(record.path)
    seen = read_back(record)
    assert default_run_id(record.about()) in json.dumps(seen)
    summary = seen["summary"]
    assert summary["train/loss"] == pytest.approx(0.25)
    assert summary["train/learning_rate"] == 0.001
    assert summary["sparsity/density"] == 0.5
    assert summary["tokens/token_keep_rate"] == 0.9
    assert summary["speed/step_time_ms"] == 10.0
    assert summary["cost/flops_saving_pct"] == pytest.approx(49.24, abs=0.02)
    assert summary["published/top1_pct"] == 80.18
    assert summary["published/flops_saving_pct"] == 49.32
    # At scales other than the paper's, an accuracy has another name and no difference to the published accuracy.
    assert summary["smoke/top1_pct"] == summary["deit_small/smoke_top1_pct"] == 77.0
    assert summary["result/smoke_top1_best_pct"] == 78.5
    assert not [name for name in summary if name.startswith(("eval/", "result/top1", "delta/", "deit_small/top1"))]
    assert [entry["loss"] for entry in record.metrics() if entry["kind"] == "train"] == [2.0 / n for n in range(1, 9)]
    config_seen = json.dumps(seen["config"])
    assert "c0ffee" in config_seen
    assert config.signature in config_seen
    files = {path.name for path in (segment / "files").rglob("*")}
    assert {"resolved_config.yaml", "provenance.json", "requirements.txt"} <= files
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.mode, mirror.through_update) == ("behind", "offline", 8)
    assert mirror.push == f"repro wandb push '{record.path}'"


# Metrics that W&B pages need from every run, whatever its method; `{layer}` is any layer that the method prunes.
OF_EVERY_RUN = {
    "train/loss", "train/learning_rate", "train/epoch", "speed/step_time_ms", "speed/images_per_s",
    "speed/loader_share_pct",
    "smoke/top1_pct", "smoke/top5_pct", "smoke/top1_ema_pct", "smoke/top5_ema_pct", "smoke/loss",
    "published/top1_pct", "cost/model_macs_g", "sparsity/churn", "update",
}  # fmt: skip
OF_METHOD = {
    "deit_small/svite-50": {
        "sparsity/density", "sparsity/ever_active", "density/blocks.0.attn.qkv", "density/blocks.2.mlp.fc2",
    },
    "deit_small/s2vite_plus-10-40": {
        "sparsity/heads_density", "sparsity/heads_ever_active", "sparsity/neurons_density",
        "density/blocks.0.attn", "density/blocks.2.mlp", "tokens/token_keep_rate", "tokens/temperature",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OF_METHOD)
def test_a_training_read_back_has_every_curve(name: str, tmp_path: Path) -> None:
    (row,) = load_table("table1").select([name])
    config = compose([*row.overrides, "scale=smoke", "tracker.mode=offline", "run.device=cpu"])
    record = record_for(tmp_path, config, "table1", row.id)
    record.create(config, "table1", row.id)
    assert execute(record.path, log=lambda _: None) == EXIT_DONE
    (segment,) = offline_segments(record.path)
    lines = [record["history"]["item"] for record in history_of(segment)]
    entries = sorted(record.metrics(), key=step_of)
    assert [line["_step"] for line in lines] == [step_of(entry) for entry in entries]
    assert set().union(*lines) >= OF_EVERY_RUN | OF_METHOD[name]
    logged = {line["_step"]: line for line in lines}
    for entry in entries:
        line = logged[step_of(entry)]
        where = "smoke" if entry["kind"] == "eval" else "train"
        seen = line[f"{where}/loss"] if entry["kind"] != "masks" else line["sparsity/churn"]
        assert seen == pytest.approx(entry.get("eval_loss", entry.get("loss", entry.get("churn"))))
    published = row.best_published("top1_pct")
    assert published is not None
    assert {line["published/top1_pct"] for line in lines if "published/top1_pct" in line} == {published.value}
    summary = read_back(record)["summary"]
    assert summary["result/smoke_top1_last_pct"] == (record.result() or {})["top1_last_pct"]
    assert not list(segment.rglob("*.safetensors"))
    # The record has the package versions of this machine, which a push from another machine sends.
    versions = (record.path / "requirements.txt").read_text()
    assert f"\nwandb=={wandb.__version__}\n" in versions
    assert (segment / "files" / "requirements.txt").read_text() == versions


def test_every_attempt_is_a_segment_of_one_run_and_the_last_holds_all(tmp_path: Path) -> None:
    record, config = new_record(tmp_path)
    write_run(record, config, range(1, 5), finished=False)
    begun = int(time.time())
    while int(time.time()) == begun:  # the client names segments by time, in seconds
        time.sleep(0.02)
    write_run(record, config, range(4, 9))  # from the checkpoint after update 3
    segments = offline_segments(record.path)
    assert len(segments) == 2
    assert len({segment.name.split("-", 3)[-1] for segment in segments}) == 1
    latest = read_back(record)
    assert (latest["state"], latest["summary"]["_step"]) == ("finished", 4 * 8 + 2)


@pytest.mark.parametrize("document", ["docs/tracking.md"])
def test_the_commands_that_the_documents_show_open_one_run(document: str, tmp_path: Path) -> None:
    # Several folders: a second seed, and a second segment of a resumed run.
    record, config = new_record(tmp_path / "runs")
    write_run(record, config, range(1, 5))
    os.utime(record.path / "wandb", (0, 0))
    latest, config = new_record(tmp_path / "runs", "seed=1")
    write_run(latest, config, range(1, 5), finished=False)
    shutil.copytree(offline_segments(latest.path)[0], latest.path / "wandb" / "offline-run-20200101_000000-older")
    lines = (Path(__file__).parents[2] / document).read_text().splitlines()
    folder, inspect = (
        next(line.strip() for line in lines if start in line) for start in ("run=$(ls", "wandb leet inspect")
    )
    place = re.sub(r"runs/table1/\S+/(local|smoke)/", f"runs/table1/{ROW.id}/smoke/", folder)
    command = re.sub(r"\S*wandb leet", f"{sys.executable} -m wandb leet", inspect).replace(
        "--summary", "--summary --json"
    )
    answer = subprocess.run(
        ["bash", "-c", f"{place}\n{command}"], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    assert json.loads(answer.stdout)["summary"]["train/loss"] == pytest.approx(0.5)
    assert default_run_id(latest.about()) in answer.stdout


def test_online_a_requeued_run_is_one_run_with_every_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, config = new_record(tmp_path)
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        sinks = open_sinks(record, config, is_first=True)
        for update in range(1, 5):
            sinks.write(train_entry(update))
        sinks.close(None)  # stopped during evaluation, which the next attempt logs
        sinks = open_sinks(record, config, is_first=True)
        sinks.write(train_entry(4))  # repeated identically after a resume from an older checkpoint
        sinks.write(eval_entry(4))
        sinks.close(None)
        write_run(record, config, range(5, 9))
        (run,) = server.runs.values()
    steps = [line["_step"] for line in run.history]
    assert steps == [5, 9, 13, 17, 18, 21, 25, 29, 33, 34]
    assert [line["update"] for line in run.history if "smoke/top1_pct" in line] == [4, 8]
    assert run.exit_code == 0
    assert run.about["groupName"] == f"table1/{ROW.id}/smoke"
    assert run.about["commit"].startswith("c0ffee")
    assert "scale=smoke" in run.about["tags"]
    assert run.summary["result/smoke_top1_best_pct"] == 78.5
    assert b"deit_small/svite_plus-5-50" in run.files["record/resolved_config.yaml"]
    assert run.files["requirements.txt"] == b"torch==2.8.0+node\n"
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.state, mirror.push) == ("current", "")
    assert mirror.url is not None
    assert KEY.encode() not in bytes_below(record.path)


def test_paper_scale_says_the_difference_to_the_published_value(tmp_path: Path) -> None:
    record, config = new_record(tmp_path, "scale=paper", "data.root=somewhere")
    write_run(record, config, range(1, 3))
    summary = read_back(record)["summary"]
    assert summary["delta/top1_pct"] == pytest.approx(78.5 - 80.18)
    assert summary["result/top1_best_pct"] == 78.5
    assert summary["eval/top1_pct"] == summary["deit_small/top1_pct"] == 77.0


def test_weights_are_an_artifact_where_asked_for(tmp_path: Path) -> None:
    for name, asked in (("no", "false"), ("yes", "true")):
        record, config = new_record(tmp_path / name, f"tracker.upload_weights={asked}")
        record.weights_file.write_bytes(b"weights of this run")
        write_run(record, config, range(1, 3))
        log = next(offline_segments(record.path)[0].glob("*.wandb")).read_bytes()
        assert (b"weights.safetensors" in log) == (name == "yes")


def test_tags_notes_and_entity_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("tracker.tags=[ablation,july]", "tracker.notes='first try'", "tracker.entity=me")
    record, config = new_record(tmp_path, *overrides)
    assert record.config().tracker.tags == ("ablation", "july")
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        write_run(record, config, range(1, 3))
        (run,) = server.runs.values()
    assert run.about["tags"] == [
        "table1", "svite_plus", "deit_small", "sparsity=0.5", "data_sparsity=0.05", "scale=smoke", "ablation", "july",
    ]  # fmt: skip
    assert run.about["notes"] == "first try"
    assert run.about["entity"] == "me"
    team = compose(["tracker.entity=team"])
    assert team.signature == compose([]).signature
    assert choose_project(team.tracker) == WandbProject("repro-sparse-vit", "team")
    assert choose_project(team.tracker, "other/project") == WandbProject("project", "other")
    monkeypatch.setenv("WANDB_ENTITY", "of-the-shell")
    assert choose_project(team.tracker) == WandbProject("repro-sparse-vit", "of-the-shell")


def test_no_mirror_means_no_folder(tmp_path: Path) -> None:
    record, config = new_record(tmp_path, "tracker=none")
    write_run(record, config, range(1, 3))
    assert not (record.path / "wandb").exists()
    assert read_mirror(record.path) is None
