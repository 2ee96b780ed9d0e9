"""Job scripts, the rendezvous of ranks, and cost estimates."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repro.cli.main import main
from repro.config import Config, SlurmLauncher
from repro.config.compose import compose
from repro.config.overrides import quoted
from repro.errors import UserError
from repro.files import write_json
from repro.launch import rendezvous
from repro.launch.cost_estimate import (
    CostEstimate,
    estimate,
    estimates,
    images,
    published_throughput,
    total,
)
from repro.launch.plan import PlannedRun, plan
from repro.launch.slurm_parameters import chunk_size, executor_parameters, python_command
from repro.launch.text_table import duration
from repro.runs.record import Record
from repro.tables.loader import load_table


def launcher(*overrides: str) -> SlurmLauncher:
    found = compose(["launcher=slurm", *overrides]).launcher
    assert isinstance(found, SlurmLauncher)
    return found


def script(**asked: object) -> list[str]:
    import submitit.slurm.slurm as theirs

    text = theirs._make_sbatch_string(command="PYTHON", folder="/runs/.launch/jobs", map_count=3, **asked)
    return str(text).splitlines()


def test_the_job_script() -> None:
    asked = launcher(
        "launcher.partition=gpu",
        "launcher.account=me",
        "launcher.gres=gpu:a100:8",
        "launcher.gpus_per_node=null",
        "launcher.nodes=2",
        "launcher.tasks_per_node=8",
        "launcher.mem_gb=1.5",
        "launcher.setup=[module load cuda]",
        "launcher.reservation=night",
        "launcher.extra={mail-type: FAIL}",
    )
    lines = script(**executor_parameters(asked, "repro-table1-0123", ["afterok:16_3", "afterany:12"], 2))
    assert "\n".join(lines).strip() == GOLDEN.strip()


GOLDEN = """
#!/bin/bash

# Parameters
#SBATCH --account=me
#SBATCH --array=0-2%2
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:16_3,afterany:12
#SBATCH --error=/runs/.launch/jobs/%A_%a_0_log.err
#SBATCH --gres=gpu:a100:8
#SBATCH --job-name=repro-table1-0123
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=FAIL
#SBATCH --mem=1536MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/.launch/jobs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --reservation=night
#SBATCH --signal=USR2@180
#SBATCH --time=1440

# setup
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/.launch/jobs/%A_%a_%t_log.out --error /runs/.launch/jobs/%A_%a_%t_log.err \
--kill-on-bad-exit=1 PYTHON
"""


def test_no_key_of_a_launcher_changes_a_signature() -> None:
    assert compose(["launcher=slurm", "launcher.time_min=10"]).signature == compose([]).signature


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["launcher=slurm", "launcher.time_min=0"], "launcher.time_min=0: input should be greater than 0"),
        (["launcher=slurm", "launcher.partion=x"], "launcher.partion: no such key; nearest: launcher.partition"),
        (
            ["launcher=slurm", "launcher.time_min=3"],
            "launcher.signal_lead_s=180: must be below launcher.time_min=3 minutes",
        ),
        (["launcher=slrm"], "no launcher 'slrm'"),
    ],
)
def test_a_wrong_launcher_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(overrides)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["launcher=slurm", "launcher.gpus_per_node=8"], 7),
        (["launcher=slurm", "launcher.gpus_per_node=8", "launcher.tasks_per_node=8"], 0),
        (["launcher=slurm", "launcher.gpus_per_node=null", "launcher.gres=gpu:8"], 0),
        (["launcher=local", "launcher.gpus_per_node=4", "launcher.tasks_per_node=2"], 2),
        (["launcher=inline"], 0),
    ],
)
def test_gpus_that_no_rank_trains_on_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], idle: int
) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "table1", "deit_tiny/dense", "--scale", "smoke", "--runs", str(tmp_path), *words])
    text = f"so {idle} of each node would be idle"
    assert (text in capsys.readouterr().out) == (idle > 0)


def test_chunks_stay_below_the_largest_index() -> None:
    assert chunk_size(launcher(), {"MaxArraySize": "4"}) == 3
    assert chunk_size(launcher("launcher.array_size=2"), {"MaxArraySize": "1001"}) == 2
    assert chunk_size(launcher(), {}) == 1000


def test_the_container_is_before_python() -> None:
    command = python_command(launcher("launcher.container=[apptainer,exec,/images/with space.sif]"))
    assert command.startswith("apptainer exec '/images/with space.sif' /")


def test_ports_differ_between_jobs_and_starts() -> None:
    ports = {rendezvous.port(str(job), start) for job in range(1000, 1050) for start in range(3)}
    assert len(ports) == 150
    assert all(1024 < port < 32768 for port in ports)


def test_only_a_task_of_srun_is_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    caches = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    for name in [*names, *caches, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    job = {"JOB_ID": "77", "NTASKS": "4", "JOB_NUM_NODES": "2", "JOB_NODELIST": "node[3,7]", "NODEID": "1"}
    for name, value in {**job, "PROCID": "3", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    rendezvous.join_step()
    assert "WORLD_SIZE" not in os.environ, "a batch script is no task"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    rendezvous.join_step()
    found = [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    assert found == ["3", "4", "1", "2", "node3"]
    monkeypatch.setenv("SLURM_PROCID", "2")
    rendezvous.join_step()
    assert os.environ["RANK"] == "3", "what torchrun has set stays"


def test_the_rendezvous_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it where another test compiled something
    seen = rendezvous.task_environment(rank=9, local_rank=1, size=16, nodes=2, hosts=["node3", "node7"], job_id="77")
    assert (seen["RANK"], seen["LOCAL_RANK"], seen["WORLD_SIZE"], seen["LOCAL_WORLD_SIZE"]) == ("9", "1", "16", "8")
    assert seen["MASTER_ADDR"] == "node3"
    assert "77" in seen["TORCHINDUCTOR_CACHE_DIR"]
    assert "TRITON_CACHE_DIR" not in seen  # a cache that the user chose stays


@settings(deadline=None)  # the first config that a process composes takes longest
@given(
    text=st.text(
        st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs"), exclude_characters="$"), min_size=1
    )
)
def test_a_folder_may_have_any_name(text: str) -> None:
    assume(re.match(r"~[^/]", text) is None)  # the home folder of a user, who may not exist
    assert compose([f"run.root={quoted(text)}"]).run.root == os.path.expanduser(text)


def test_seeds_have_signatures_of_their_own(tmp_path: Path) -> None:
    table = load_table("table1")
    runs = plan(table, table.select(["deit_tiny/dense"]), "smoke", range(3), tmp_path)
    assert len({run.record.path for run in runs}) == 3
    for run in runs:
        assert run.record.path.name == f"seed{run.config.seed}-{run.config.signature[:8]}"


def test_cost_of_a_published_training() -> None:
    config = compose(["backbone=deit_small", "scale=paper", "data.root=x", "launcher=slurm"])
    price = estimate(config, published_throughput(config), watts=250.0)
    # 1,281,167 images, incomplete batches dropped, 600 epochs, at 940 / 3 images a second.
    assert images(config) == 1_281_024 * 600 if config.recipe.epochs == 600 else images(config)
    assert price.device_hours == pytest.approx((images(config) or 0) / (940 / 3) / 3600)
    assert price.energy_kwh == pytest.approx((price.device_hours or 0) * 0.25)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["backbone=deit_tiny", "scale=paper", "data.root=x"], "unknown: deit_tiny: no figure with a source"),
        (["backbone=deit_small", "scale=local"], "unknown: scale local has models of other sizes"),
        (["backbone=deit_small", "scale=paper", "data=imagefolder", "data.root=x"], "images of data=imagefolder"),
    ],
)
def test_a_cost_without_a_source_is_unknown_and_not_in_the_sum(words: list[str], why: str) -> None:
    config = compose(words)
    price = estimate(config, published_throughput(config), None)
    assert price.device_hours is None
    assert why in price.known_from
    assert total([_planned_run(config)], [price], 2).unknown == 1


def _planned_run(config: Config, starts_from: PlannedRun | None = None) -> PlannedRun:
    row = load_table("table1").rows[0]
    return PlannedRun(row, config, Record(Path("nowhere") / str(id(config))), starts_from)


def test_a_run_that_waits_for_another_one_makes_the_wall_time_longer() -> None:
    dense, omp, other = (compose(["backbone=deit_small", f"seed={seed}"]) for seed in range(3))
    first = _planned_run(dense)
    runs = [first, _planned_run(omp, first), _planned_run(other)]
    prices = [CostEstimate(hours, hours, None, "") for hours in (10.0, 5.0, 3.0)]
    assert total(runs, prices, 16).wall_hours == 15.0
    assert total(runs, prices, 1).wall_hours == 18.0
    assert total(runs[1:], prices[1:], 16).wall_hours == 5.0, "a run that is done takes no time"


def test_the_cost_is_that_of_the_remaining_updates_and_of_all_requested_gpus(tmp_path: Path) -> None:
    table = load_table("table1")
    words = ["data.root=x", "launcher=slurm", "launcher.gpus_per_node=8"]
    (run,) = plan(table, table.select(["deit_small/dense"]), "paper", [0], tmp_path, words)
    (whole,) = estimates([run], published_throughput, None)
    assert whole.device_hours == pytest.approx(8 * (whole.wall_hours or 0)), "one of eight GPUs is used"
    (shared,) = estimates(
        [replace(run, config=compose([*run.row.overrides, "scale=paper", *words, "launcher.tasks_per_node=8"]))],
        published_throughput,
        None,
    )
    assert shared.device_hours == pytest.approx(whole.wall_hours or 0)
    run.create()
    run.record.set_status(replace(run.record.status(), update=990, updates=1000))
    (left,) = estimates([run], published_throughput, None)
    assert left.device_hours == pytest.approx((whole.device_hours or 0) / 100)


def test_finished_runs_tell_what_the_others_cost(tmp_path: Path) -> None:
    table = load_table("table1")
    runs = plan(table, table.select(["deit_tiny/dense", "deit_tiny/svite-30"]), "smoke", range(3), tmp_path)
    dense = [run for run in runs if run.row.id == "deit_tiny/dense"]
    for run, wall_s in zip(dense[:2], (100.0, 300.0), strict=True):
        run.create()
        write_json(run.record.path / "result.json", {"wall_s": wall_s, "world_size": 2, "device": "cuda:0"})
    costs = dict(zip(runs, estimates(runs, lambda _: None, None), strict=True))
    count = images(dense[0].config) or 0
    rate = (count / 100 + count / 300) / 2 / 2  # images a second and device
    third = costs[dense[2]]
    assert third.device_hours == pytest.approx(count / rate / 3600)
    assert third.known_from == "2 finished runs of deit_tiny dense here (cuda)"
    assert [costs[run].device_hours for run in runs if run not in dense] == [None] * 3


def test_a_plan_prints_its_total_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scale", "paper", "--seeds", "1", "launcher=slurm", "launcher.parallel=64", "--runs", str(tmp_path)]
    gpus = ["launcher.gpus_per_node=8", "launcher.tasks_per_node=8"]
    with pytest.raises(SystemExit, match="0"):  # and needs no folder of images
        main(["plan", "table1", "deit_small/dense", *words, *gpus])
    text = capsys.readouterr().out
    hours = 600 * 1_281_024 / (940 / 3) / 3600
    assert (round(hours), round(hours / 24), round(hours / 24 / 8)) == (681, 28, 4)
    assert "at least 681 GPU-hours: 28 days on 1 GPU, 4 on 8; energy unknown (--watts)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90000, "1 d 1 h"), (86400 + 60, "1 d")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
