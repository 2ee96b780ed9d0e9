"""W&B sweeps: what `wandb agent` starts is mirrored into the agent's runs, and nothing else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loopback import serving
from mirrored import finished, new_record, restart_client, use, write_run
from rich.console import Console

from repro.config.compose import compose
from repro.config.groups import CONF_DIR
from repro.errors import UserError
from repro.launch.single_run import train
from repro.runs.record import all_records
from repro.tracking.mirror_file import push_command, read_mirror
from repro.tracking.push import push
from repro.tracking.sweep import check_agent_run, mirror_into_agent_run
from repro.tracking.wandb_run import default_run_id

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((CONF_DIR / "sweeps").glob("*.yaml"))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Set the environment as an agent does for its command; return the id of its W&B run."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nrecipe.lr: {value: 0.01}\n")
    for name, value in {
        "WANDB_SWEEP_ID": "s1",
        "WANDB_RUN_ID": "agents-run",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_PROJECT": "proj",
        "WANDB_ENTITY": "me",
    }.items():
        monkeypatch.setenv(name, value)
    return "agents-run"


# The client does not close the parameter file.
@pytest.mark.filterwarnings("ignore:.*parameters.yaml:pytest.PytestUnraisableExceptionWarning")
def test_the_attempts_and_pushes_of_a_record_share_the_agents_run(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = new_record(tmp_path / "runs")
    with serving() as server:
        use(monkeypatch, server)
        mirror_into_agent_run(record)
        write_run(record, config, range(1, 5), finished=False)
        assert list(server.runs) == [f"proj/{agent}"]
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_ENTITY"):
            monkeypatch.delenv(name)
        restart_client()
        write_run(record, config, range(5, 9))  # requeued, in another process without the agent
        (pushed,) = push([record])
        assert pushed.sent == 0
        (run,) = server.runs.values()
        assert list(server.runs) == [f"proj/{agent}"]
        assert [line["update"] for line in run.history] == [*range(1, 5), 4, *range(5, 9), 8]
        assert run.config["recipe.lr"] == 0.01, "the sweep's own parameter"
    mirror = read_mirror(record.path)
    assert mirror is not None
    assert (mirror.run_id, mirror.state) == (agent, "current")


def test_two_runs_do_not_share_the_agents_run(agent: str, tmp_path: Path) -> None:
    first, second = (new_record(tmp_path / "runs", f"seed={seed}")[0] for seed in (0, 1))
    check_agent_run(first.path, tmp_path / "runs")
    mirror_into_agent_run(first)
    check_agent_run(first.path, tmp_path / "runs")  # a later attempt
    with pytest.raises(UserError) as refused:
        check_agent_run(second.path, tmp_path / "runs")
    assert str(refused.value) == (
        f"WANDB_RUN_ID={agent}: already the W&B run of {first.path}; unset it, or use wandb agent"
    )


def test_a_finished_run_of_an_agent_without_a_key_has_succeeded(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out, root = io.StringIO(), tmp_path / "runs"
    assert train(["backbone=deit_tiny", "scale=smoke", f"run.root={root}"], Console(file=out)) == 0
    (record,) = all_records(root)
    line = "the sweep does not have the result: not logged in to W&B: run `wandb login`, or set WANDB_API_KEY; then "
    assert out.getvalue().endswith(f"{line}{push_command(record.path)}\n")


def test_other_runs_in_the_environment_of_an_agent_have_runs_of_their_own(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, config = new_record(tmp_path / "runs")
    pushed = finished(tmp_path / "runs", "seed=1")
    with serving() as server:
        use(monkeypatch, server)
        write_run(record, config, range(1, 5))
        assert [outcome.failed for outcome in push([pushed])] == [""]
        ids = {default_run_id(made.about()) for made in (record, pushed)}
        assert {name.partition("/")[2] for name in server.runs} == ids
        assert agent not in ids
    for made in (record, pushed):
        mirror = read_mirror(made.path)
        assert mirror is not None
        assert (mirror.run_id, mirror.state) == (default_run_id(made.about()), "current")


@pytest.mark.slow
def test_an_agent_trains_what_the_sweep_asks_for(tmp_path: Path) -> None:
    """The method starts from another run; parameters that were tried before are not trained again."""
    sweep = yaml.safe_load((CONF_DIR / "sweeps" / "svite_local.yaml").read_text())
    start = sweep["command"].index("repro")
    sweep["command"][start : start + 1] = [sys.executable, "-m", "repro"]
    sweep["command"].insert(-1, "scale=smoke")
    with serving() as server:
        server.sweep_config = yaml.safe_dump(sweep)
        server.sweep_parameters = [{"method": "omp"}, {"method": "omp"}]
        answer = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "me/proj/s1"],
            env={**os.environ, **server.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        )  # fmt: skip
        runs = {name.partition("/")[2]: run for name, run in server.runs.items()}
        assert not server.unknown
    assert {"r0", "r1"} < runs.keys(), answer.stdout + answer.stderr
    (dense,) = runs.keys() - {"r0", "r1"}
    assert dense.startswith("by_hand-deit_tiny-dense-")
    assert {name: runs[name].exit_code for name in runs} == dict.fromkeys(runs, 0)
    first, second = runs["r0"], runs["r1"]
    assert json.loads(first.config["resolved_config"])["method"]["name"] == "omp"
    assert first.summary["record/result_sha256"] == second.summary["record/result_sha256"]
    metric = sweep["metric"]["name"].replace("local/", "smoke/")
    assert all(any(metric in line for line in run.history) for run in (first, second))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_parameters_of_each_sweep_are_overrides(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    words = [word for word in sweep["command"] if "=" in word]
    for name, parameter in sweep["parameters"].items():
        for value in parameter.get("values", [parameter.get("min"), parameter.get("max")]):
            assert compose([*words, f"{name}={value}"]).signature != compose(words).signature or value == 0.5
    assert sweep["command"][:2] == ["repro", "train"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    assert sweep["metric"]["name"] == f"{compose(words).scale.name}/top1_pct"
