"""On a real Slurm: tables finish, whatever happens to their jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from lab import Lab, outcome
from one_node import MAX_ARRAY_SIZE, OneNode

ROW = "deit_tiny/s2vite-30"
LONG = "recipe.epochs=60"  # 240 updates: some seconds
pytestmark = pytest.mark.slurm


@pytest.fixture
def lab(cluster: OneNode, tmp_path: Path) -> Lab:
    folder = tmp_path / "a folder; with $odd 'characters'"
    folder.mkdir()
    return Lab(cluster, folder)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster: OneNode) -> Lab:
    """The long run, in peace and without Slurm."""
    lab = Lab(cluster, tmp_path_factory.mktemp("undisturbed"))
    lab.repro("launch", "table1", ROW, "--scale", "smoke", LONG, "tracker=none")
    return lab


def same_as(lab: Lab, undisturbed: Lab) -> None:
    """Result, metrics and weights, bit for bit."""
    record, other = lab.record(ROW), undisturbed.record(ROW)
    assert outcome(record) == outcome(other)
    last = [torch.load(max(each.checkpoint_dir.glob("update-*.pt")), weights_only=True) for each in (record, other)]
    for name, tensor in last[1]["model"].items():
        assert torch.equal(tensor, last[0]["model"][name]), name


def test_a_table_in_arrays_beyond_max_array_size_and_launched_twice_at_once(lab: Lab) -> None:
    rows = "deit_tiny/* deit_small/dense deit_small/svite-40 deit_small/svite-50"
    answers: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: answers.append(lab.launch(rows))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = len(lab.records())
    assert count > MAX_ARRAY_SIZE  # more than one array, as one would be refused as a whole
    said = "".join(answer.stdout for answer in answers)
    assert said.count(f"submitted {count} runs in {-(-count // (MAX_ARRAY_SIZE - 1))} arrays") == 1, said
    lab.wait_empty(150)
    for row, record in lab.records().items():
        assert (row, record.status().state, record.latest_attempt()) == (row, "done", 1)
    assert not list((lab.folder / "runs" / ".launch" / "tokens").iterdir())
    assert "nothing to submit" in lab.launch(rows).stdout


def test_two_ranks(lab: Lab) -> None:
    lab.launch(ROW, "launcher.tasks_per_node=2")
    lab.wait_state(ROW, "done", "failed")
    record = lab.record(ROW)
    assert (record.result() or {})["world_size"] == 2
    assert "2 ranks x 1 x 32" in (record.attempt_dir(1) / "stdout").read_text()


def test_preempted_requeued_and_resumed_bit_for_bit(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG, "launcher.partition=low")
    lab.wait_update(ROW, 30)
    job_id = lab.record(ROW).status().job_id or ""
    lab.node.run("sbatch", "-p", "high", "-n4", "-o", "/dev/null", "--wrap", "sleep 2")
    lab.wait_state(ROW, "requeued")
    assert "SIGUSR2" in (lab.record(ROW).status().reason or "")
    lab.wait_state(ROW, "done")
    status = lab.record(ROW).status()
    assert (status.job_id, status.attempt) == (job_id, 2)
    assert "resumed from update" in (lab.record(ROW).attempt_dir(2) / "stdout").read_text()
    same_as(lab, undisturbed)


def test_timed_out_requeued_and_resumed(lab: Lab) -> None:
    # A minute is Slurm's shortest limit; told 40 s before its end, so 20 s after its start.
    lab.launch(ROW, "recipe.epochs=500", "launcher.time_min=1", "launcher.signal_lead_s=40")
    lab.wait_state(ROW, "requeued")
    stopped_at = lab.record(ROW).status().update
    assert stopped_at > 0
    lab.wait_state(ROW, "running", "done")
    stdout = lab.record(ROW).attempt_dir(2) / "stdout"
    lab.node.wait(lambda: stdout.exists() and f"resumed from update {stopped_at}" in stdout.read_text())
    assert lab.record(ROW).status().job_id == (lab.record(ROW).attempt_dir(1) / "job").read_text().split()[0]
    lab.wait_state(ROW, "requeued", "done")  # it ends, or its next slice does
    lab.node.run("scancel", lab.record(ROW).status().job_id or "")
    lab.wait_empty()


def test_cancelled_while_it_saves_is_not_requeued_and_goes_on(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG, "run.checkpoint_every_s=0.01")  # it saves most of the time
    lab.wait_update(ROW, 20)
    lab.node.run("scancel", lab.record(ROW).status().job_id or "")
    lab.wait_empty()
    assert lab.state(ROW) == "cancelled"
    lab.launch(ROW, LONG)
    lab.wait_state(ROW, "done")
    same_as(lab, undisturbed)


def test_a_node_that_dies_is_replaced_by_a_requeue(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG, "run.checkpoint_every_s=0.2")
    lab.wait_update(ROW, 20)
    pid = lab.record(ROW).status().pid
    assert pid is not None
    stepd = [each.pid for each in psutil.process_iter() if each.name() == "slurmstepd"]
    lab.node.kill("slurmd")
    for process in (pid, *stepd):
        os.kill(process, signal.SIGKILL)
    lab.node.run("scontrol", "update", f"NodeName={lab.node.host}", "State=DOWN", "Reason=test")
    lab.node.start_daemon("slurmd")
    time.sleep(1)
    lab.node.run("scontrol", "update", f"NodeName={lab.node.host}", "State=RESUME", check=False)
    lab.wait_state(ROW, "done")
    assert lab.record(ROW).latest_attempt() >= 2
    same_as(lab, undisturbed)


def test_the_controller_restarts_meanwhile(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG)
    lab.wait_update(ROW, 20)
    lab.node.run("scontrol", "shutdown", "slurmctld")
    lab.node.processes.pop("slurmctld").wait(30)
    time.sleep(1)
    lab.node.start_daemon("slurmctld")
    lab.node.wait(lambda: lab.node.run("squeue", check=False).returncode == 0)
    assert "Slurm has job" in lab.launch(ROW, LONG).stdout
    lab.wait_state(ROW, "done")
    lab.wait_empty()
    assert lab.record(ROW).latest_attempt() == 1
    same_as(lab, undisturbed)


def test_a_launch_that_died_after_sbatch_is_mended(lab: Lab) -> None:
    lab.launch(ROW, "deit_tiny/dense", LONG)
    tokens = lab.folder / "runs" / ".launch" / "tokens"
    records = lab.records()
    names = lab.node.run("squeue", "-h", "-o", "%j").stdout.split()
    # As if it had been killed before the ids were on disk.
    order = [str(records[row].path.relative_to(lab.folder / "runs")) for row in ("deit_tiny/dense", ROW)]
    (tokens / f"{names[0].rsplit('-', 1)[1]}.json").write_text(json.dumps({"runs": order}))
    said = lab.launch(ROW, "deit_tiny/dense", LONG).stdout
    assert "2 of its jobs kept, 0 cancelled" in said
    assert "nothing to submit" in said
    assert not list(tokens.iterdir())
    lab.node.run("scancel", "--user=root")
    lab.wait_empty()


def test_nobody_to_ask_submits_nothing(lab: Lab) -> None:
    answer = lab.repro(
        "launch", "table1", ROW, "--scale", "smoke", "launcher=slurm", "launcher.gpus_per_node=0", code=2
    )
    assert "say --yes to submit" in answer.stderr
    assert not lab.records()


def test_a_failing_row_disturbs_no_other_and_accounting_knows(cluster_with_accounting: OneNode, tmp_path: Path) -> None:
    lab = Lab(cluster_with_accounting, tmp_path)
    lab.launch(f"{ROW} deit_tiny/dense", "recipe.warmup_epochs=0")
    lab.launch("deit_tiny/svite-30", "recipe.warmup_epochs=0", "recipe.lr=1e30")
    lab.wait_empty()
    states = {row: record.status() for row, record in lab.records().items()}
    assert [states[row].state for row in (ROW, "deit_tiny/dense")] == ["done", "done"]
    assert states["deit_tiny/svite-30"].state == "failed"

    def known(job_id: str | None) -> str:
        return lab.node.run("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", str(job_id)).stdout.strip()

    lab.node.wait(lambda: known(states["deit_tiny/svite-30"].job_id) == "FAILED|1:0")
    for row in (ROW, "deit_tiny/dense"):
        assert known(states[row].job_id) == "COMPLETED|0:0"
