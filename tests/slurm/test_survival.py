"""On a real Slurm: a run comes to the same end, bit for bit, whatever happens to its job."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from lab import BEGUN, LONG, ORIGIN, ROW, Lab, outcome

pytestmark = pytest.mark.slurm


def same_as(lab: Lab, undisturbed: Lab, row: str = ROW) -> None:
    """Result, metrics and weights, bit for bit."""
    undisturbed.finish()
    record, other = lab.record(row), undisturbed.record(row)
    assert outcome(record) == outcome(other)
    last = [torch.load(max(each.checkpoint_dir.glob("update-*.pt")), weights_only=True) for each in (record, other)]
    for name, tensor in last[1]["model"].items():
        assert torch.equal(tensor, last[0]["model"][name]), name


def test_an_array_preempted_requeued_and_resumed_bit_for_bit(
    lab: Lab, undisturbed: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two long rows of one array, each with a requeue of its own, and a short one that is done and stays so.

    A fourth starts from one of the long ones, and waits in Slurm while that is preempted and resumed.
    """
    short = "deit_tiny/svite-30"
    lab.launch_together({ROW: [LONG], short: [], BEGUN: [LONG]}, monkeypatch, "launcher.partition=low")
    lab.wait_state(short, "done")
    for row in (ROW, ORIGIN):
        lab.wait_update(row, 30)
    ids = {row: lab.job_id(row) for row in lab.records()}
    assert {ids[row].partition("_")[2] for row in (ROW, short, ORIGIN)} == {"0", "1", "2"}
    assert lab.node.job(ids[BEGUN])["Reason"] == "Dependency"
    lab.node.run("sbatch", "-p", "high", "-n4", "-o", "/dev/null", "--wrap", "sleep 2")
    for row in (ROW, ORIGIN):
        lab.wait_state(row, "requeued")
        assert "SIGUSR2" in (lab.record(row).status().reason or "")
    for row in (ROW, ORIGIN):
        lab.wait_state(row, "done")
        status = lab.record(row).status()
        assert (status.job_id, status.attempt) == (ids[row], 2)
        assert "resumed from update" in (lab.record(row).attempt_dir(2) / "stdout").read_text()
        same_as(lab, undisturbed, row)
    lab.wait_state(BEGUN, "done", "failed")
    assert (lab.record(BEGUN).status().job_id, lab.record(BEGUN).latest_attempt()) == (ids[BEGUN], 1)
    assert lab.state(BEGUN) == "done"
    lab.wait_empty()
    assert lab.record(short).latest_attempt() == 1


def test_two_ranks_stop_at_one_update_and_resume_bit_for_bit(lab: Lab, tmp_path: Path) -> None:
    """Two tasks of one job over gloo, signalled as Slurm does it, and the same undisturbed."""
    peace = Lab(lab.node, tmp_path / "peace")
    peace.folder.mkdir()
    for each in (lab, peace):
        each.launch(ROW, "recipe.epochs=25", "launcher.tasks_per_node=2")
    lab.wait_update(ROW, 10)
    record = lab.record(ROW)
    job_id = record.status().job_id or ""
    lab.node.run("scancel", "--signal=USR2", job_id)
    lab.wait_state(ROW, "requeued")
    stopped = record.status()
    (others,) = (lab.folder / "runs" / ".launch" / "jobs").glob(f"*/{job_id}_1_log.out")
    for rank, file in enumerate((record.attempt_dir(1) / "stdout", others)):
        # Slurm signals each; the slower one may learn it from the other first.
        assert re.search(f"^rank {rank}: stopped by .+ after update {stopped.update}$", file.read_text(), re.MULTILINE)
    lab.wait_state(ROW, "done", "failed")
    assert (record.status().job_id, record.latest_attempt()) == (job_id, 2)
    log = (record.attempt_dir(2) / "stdout").read_text()
    assert "2 ranks x 1 x 32" in log
    assert f"resumed from update {stopped.update}" in log
    assert (record.result() or {})["world_size"] == 2
    peace.wait_state(ROW, "done", "failed")
    assert peace.record(ROW).latest_attempt() == 1
    same_as(lab, peace)


def test_timed_out_requeued_and_resumed(lab: Lab) -> None:
    # A minute is Slurm's shortest limit; the signal comes 48 s before its end, 12 s after its start.
    lab.launch(ROW, "recipe.epochs=5000", "launcher.time_min=1", "launcher.signal_lead_s=48")

    def has_stopped_on_the_way() -> bool:
        lab.node.release()  # a busy machine may need another slice to get to its first update
        return lab.state(ROW) == "requeued" and lab.record(ROW).status().update > 0

    lab.node.wait(has_stopped_on_the_way, 240)
    record = lab.record(ROW)
    stopped = record.status()
    assert "SIGUSR2" in (stopped.reason or "")
    resumed = record.attempt_dir(stopped.attempt + 1) / "stdout"

    def goes_on() -> bool:
        lab.node.release()
        return resumed.exists() and f"resumed from update {stopped.update}" in resumed.read_text()

    lab.node.wait(goes_on, 240)
    assert lab.record(ROW).status().job_id == (record.attempt_dir(1) / "job").read_text().split()[0]
    lab.node.run("scancel", lab.record(ROW).status().job_id or "")
    lab.wait_empty()


def stopped_while_it_saves(pid: int, checkpoints: Path) -> bool:
    """Stop a process while it writes a checkpoint; False if it was not writing one."""
    until = time.monotonic() + 2
    while not list(checkpoints.glob(".update-*.tmp")):
        if time.monotonic() > until:
            return False
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < until + 10
    if list(checkpoints.glob(".update-*.tmp")):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def test_a_run_cancelled_while_it_saves_is_not_requeued_and_resumes(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG, "run.checkpoint_every_s=0.01")  # it saves most of the time
    lab.wait_update(ROW, 20)
    status = lab.record(ROW).status()
    pid, saves = status.pid or 0, lab.record(ROW).checkpoint_dir
    lab.node.wait(lambda: stopped_while_it_saves(pid, saves), 60)
    # Slurm sends SIGCONT and SIGTERM together.
    lab.node.run("scancel", status.job_id or "")
    lab.wait_empty()
    assert lab.state(ROW) == "cancelled"
    lab.launch(ROW, LONG)
    lab.wait_state(ROW, "done")
    same_as(lab, undisturbed)


def test_a_run_resumes_after_its_node_has_failed(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG, "run.checkpoint_every_s=0.2")
    lab.wait_update(ROW, 20)
    pid = lab.record(ROW).status().pid
    assert pid is not None
    lab.node.kill("slurmd")
    daemons = lab.node.step_daemons()
    assert daemons
    for process in (pid, *daemons):
        os.kill(process, signal.SIGKILL)
    name = f"NodeName={lab.node.host}"
    lab.node.run("scontrol", "update", name, "State=DOWN", "Reason=test")
    lab.node.start_daemon("slurmd")

    def is_back() -> bool:
        lab.node.run("scontrol", "update", name, "State=RESUME", check=False)
        states = lab.node.run("sinfo", "-h", "-n", lab.node.host, "-o", "%T").stdout.split()
        return bool(states) and set(states) <= {"idle", "mixed", "allocated"}

    def nothing_is_on_its_way() -> bool:
        """The controller may still be telling the node to kill the lost job: the requeued one has the same number."""
        lines = lab.node.run("sdiag").stdout.splitlines()
        return all(line.split(":")[1].strip() == "0" for line in lines if line.strip().startswith("Agent "))

    lab.node.wait(is_back)
    lab.node.wait(nothing_is_on_its_way)
    lab.wait_state(ROW, "done")
    assert lab.record(ROW).latest_attempt() >= 2
    same_as(lab, undisturbed)


def test_a_run_survives_a_restart_of_the_controller(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG)
    lab.wait_update(ROW, 20)
    lab.node.run("scontrol", "shutdown", "slurmctld")
    lab.node.processes.pop("slurmctld").wait(30)
    lab.wait_update(ROW, lab.record(ROW).status().update + 1)  # the run does not care
    lab.node.start_daemon("slurmctld")
    lab.node.wait(lambda: lab.node.run("squeue", check=False).returncode == 0)
    assert re.search("Slurm job .* is ", lab.launch(ROW, LONG).stdout)
    assert lab.record(ROW).latest_attempt() == 1
    # As an admin does it, or Slurm itself: SIGTERM, as with scancel, and the job comes back all the same.
    lab.node.run("scontrol", "requeue", lab.record(ROW).status().job_id or "")
    lab.node.wait(lambda: lab.state(ROW) in ("requeued", "cancelled"))
    assert lab.state(ROW) == "requeued"
    assert re.search("Slurm job .* is ", lab.launch(ROW, LONG).stdout)
    lab.wait_state(ROW, "done")
    lab.wait_empty()
    assert lab.record(ROW).latest_attempt() == 2
    same_as(lab, undisturbed)
