"""On a real Slurm: a run comes to the same end, bit for bit, whatever happens to its job."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lab import LONG, ROW, Lab, outcome

pytestmark = pytest.mark.slurm


def same_as(lab: Lab, undisturbed: Lab) -> None:
    """Result, metrics and weights, bit for bit."""
    record, other = lab.record(ROW), undisturbed.record(ROW)
    assert outcome(record) == outcome(other)
    last = [torch.load(max(each.checkpoint_dir.glob("update-*.pt")), weights_only=True) for each in (record, other)]
    for name, tensor in last[1]["model"].items():
        assert torch.equal(tensor, last[0]["model"][name]), name


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
    lab.launch(ROW, "recipe.epochs=5000", "launcher.time_min=1", "launcher.signal_lead_s=40")

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


def test_the_controller_restarts_meanwhile(lab: Lab, undisturbed: Lab) -> None:
    lab.launch(ROW, LONG)
    lab.wait_update(ROW, 20)
    lab.node.run("scontrol", "shutdown", "slurmctld")
    lab.node.processes.pop("slurmctld").wait(30)
    lab.wait_update(ROW, lab.record(ROW).status().update + 1)  # the run does not care
    lab.node.start_daemon("slurmctld")
    lab.node.wait(lambda: lab.node.run("squeue", check=False).returncode == 0)
    assert "Slurm has job" in lab.launch(ROW, LONG).stdout
    lab.wait_state(ROW, "done")
    lab.wait_empty()
    assert lab.record(ROW).latest_attempt() == 1
    same_as(lab, undisturbed)
