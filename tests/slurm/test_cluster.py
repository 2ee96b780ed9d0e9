"""On a real Slurm: tables are launched and finished, once, and what fails is known."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lab import ROW, SMALL, Lab
from one_node import MAX_ARRAY_SIZE, OneNode

from repro.config.compose import compose
from repro.launch import slurm
from repro.models.backbone import build_model

pytestmark = pytest.mark.slurm


def names_in_queue(lab: Lab) -> list[str]:
    return lab.node.run("squeue", "-h", "-o", "%j").stdout.split()


def test_a_table_in_arrays_beyond_max_array_size_and_launched_twice_at_once(lab: Lab) -> None:
    # The user's defaults for their own commands: a filter that hides pending jobs, a job name that overrides ours.
    lab.environment |= {"SQUEUE_STATES": "R", "SBATCH_JOB_NAME": "mine", "SBATCH_TIMELIMIT": "0:01"}
    # And they launch from an interactive job, whose settings srun would take for requests of ours, and refuse.
    lab.environment |= {"SLURM_JOB_ID": "4711", "SLURM_MEM_PER_CPU": "100", "SLURM_NTASKS": "7"}
    rows = "deit_tiny/dense deit_tiny/svite-30 deit_tiny/svite-40 deit_tiny/s2vite-30 deit_tiny/omp-30"
    answers: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(lab.launch(rows, "launcher.mem_gb=0.2"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lab.records()) == 5 > MAX_ARRAY_SIZE  # one array of them all would be refused as a whole
    output = "".join(answer.stdout for answer in answers)
    # Two arrays of three and one; omp-30 starts from dense, and waits for that job in another array.
    assert output.count("submitted 5 runs in 3 arrays") == 1, output
    lab.wait_empty()
    for row, record in lab.records().items():
        assert (row, record.status().state, record.latest_attempt()) == (row, "done", 1)
    assert "nothing to submit" in lab.launch(rows).stdout


def test_two_nodes(lab: Lab) -> None:
    """One rank on each of two nodes, which find each other by the name of the first."""
    lab.launch(ROW, "launcher.nodes=2", "launcher.partition=pair")
    lab.wait_state(ROW, "done", "failed")
    record = lab.record(ROW)
    assert (record.result() or {})["world_size"] == 2
    job = lab.node.job(record.status().job_id or "")
    assert job["NodeList"] == f"{lab.node.host},{lab.node.second}"


def test_tasks_of_srun_evaluate_together(lab: Lab) -> None:
    """Two tasks of a step are two ranks without a word; 51 images, each counted once, and one of them speaks."""
    words = ["backbone=deit_tiny", "data.limit_test=51"]
    model = build_model(compose(["scale=local", *words]).model, 0.0, 3)
    weights = {name: 4 * value + 0.01 for name, value in model.state_dict().items()}
    torch.save(weights, lab.folder / "weights.pt")
    command = ["eval", "weights.pt", *words, "--scale", "local", "--batch", "8", "--device", "cpu", "--json"]
    alone_too = threading.Thread(target=lambda: lab.repro(*command, "alone.json"))
    alone_too.start()
    answer = subprocess.run(
        ["srun", "-n2", "-p", "low", sys.executable, "-m", "repro", *command, "both.json"],
        cwd=lab.folder,
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    alone_too.join()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("top-1") == 1
    alone, both = (json.loads((lab.folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("alone", "both"))
    assert both["setting"]["ranks"] == 2
    assert both["data"] == alone["data"]
    assert both["data"]["images"] == 51
    assert (both["top1_pct"], both["top5_pct"]) == (alone["top1_pct"], alone["top5_pct"])


def test_a_launch_that_is_killed_right_after_sbatch_loses_and_doubles_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm has the array, and its id is nowhere on disk: the token in its name tells which runs it executes."""
    rows = (ROW, "deit_tiny/svite-30")
    tools = lab.folder / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -KILL $PPID\n')
    (tools / "sbatch").chmod(0o755)
    path = lab.environment["PATH"]
    lab.occupy()
    lab.environment["PATH"] = f"{tools}:{path}"
    lab.launch(" ".join(rows), code=-signal.SIGKILL)
    lab.environment["PATH"] = path
    (manifest,) = (lab.folder / "runs" / ".launch" / "arrays").iterdir()
    assert json.loads(manifest.read_text())["job_id"] is None
    (name,) = {name for name in names_in_queue(lab) if name != "occupied"}
    assert name == f"repro-table1-{manifest.stem}"
    output = lab.launch(" ".join(rows)).stdout
    assert re.search(r"not started: \S+: Slurm job \d+_[01] is pending", output), output
    assert "nothing to submit" in output
    shown = json.loads(lab.repro("status", "table1", *rows, "--scale", "smoke", "--json", *SMALL).stdout)
    ids = {entry["job_id"] for entry in shown}
    assert {id_.partition("_")[2] for id_ in ids} == {"0", "1"}
    with monkeypatch.context() as there:
        there.setenv("SLURM_CONF", lab.environment["SLURM_CONF"])
        there.setattr(os, "getuid", lambda: 61001)  # unknown to this machine: squeue shows nothing, and exits with 0
        assert ids <= set(slurm.queue())
    lab.free()
    lab.wait_empty()
    for record in lab.records().values():
        assert (record.status().state, record.latest_attempt()) == ("done", 1)


def test_pending_jobs_are_cancelled(lab: Lab) -> None:
    rows = (ROW, "deit_tiny/svite-30")
    lab.occupy()
    lab.launch(" ".join(rows))
    lab.repro("cancel", "table1", *rows, "--scale", "smoke", *SMALL)
    lab.free()
    lab.wait_empty()
    assert [lab.state(row) for row in rows] == ["cancelled", "cancelled"]
    assert [lab.record(row).latest_attempt() for row in rows] == [0, 0]


def test_the_jobs_of_a_later_launch_replace_those_that_slurm_accepted_late(lab: Lab) -> None:
    """A second launch submits the run again, since the queue did not show the first job for long."""
    lab.occupy()
    lab.launch(ROW)
    record = lab.record(ROW)
    first = lab.job_id(ROW)
    squeue = lab.folder / "squeue"
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(0o755)
    record.set_status(replace(record.status(), heartbeat=0.0))
    path = lab.environment["PATH"]
    lab.environment["PATH"] = f"{lab.folder}:{path}"
    lab.launch(ROW)
    lab.environment["PATH"] = path
    second = lab.job_id(ROW)
    assert first != second
    lab.free()
    lab.wait_empty()
    assert (lab.state(ROW), lab.record(ROW).latest_attempt()) == ("done", 1)
    assert (record.attempt_dir(1) / "job").read_text().split()[0] == second
    (log,) = (lab.folder / "runs" / ".launch" / "jobs").glob(f"*/{first}_0_log.err")
    assert "a later launch has submitted this run" in log.read_text()


def test_the_error_of_a_wrong_container_is_shown_without_an_attempt(lab: Lab) -> None:
    lab.launch(ROW, "launcher.container=[/nowhere/apptainer,exec]")
    lab.wait_empty()
    assert (lab.state(ROW), lab.record(ROW).latest_attempt()) == ("submitted", 0)
    output = lab.repro("status", "table1", ROW, "--scale", "smoke", *SMALL).stdout
    words = "execve(): /nowhere/apptainer: No such file or directory"
    assert re.search(rf"1 failed with the same error: slurmstepd.*: error: {re.escape(words)}", output), output
    (command,) = [line.strip() for line in output.splitlines() if " logs " in line]
    shown = subprocess.run(
        command, shell=True, cwd=lab.folder, env=lab.environment, capture_output=True, text=True, check=True
    )
    assert words in shown.stdout
    checks = lab.repro("doctor", *SMALL, "launcher.container=[/nowhere/apptainer,exec]", code=1).stdout
    assert re.search(r"fail  task on a node .*/nowhere/apptainer.*-> correct launcher.container=", checks), checks


def test_doctor_on_a_cluster(lab: Lab) -> None:
    words = ("doctor", "--scale", "smoke", "--json", *SMALL)
    answer = lab.repro(*words, "launcher.partition=low", "tracker.mode=disabled", code=None)
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    found = {name: (check["verdict"], check["found"]) for name, check in checks.items()}
    assert found["slurm"] == ("pass", lab.node.run("sbatch", "--version").stdout.strip())
    assert found["partition"] == ("pass", "low")
    assert found["PreemptMode"] == ("pass", "REQUEUE")
    assert found["preempt_send_user_signal"] == ("pass", "set")
    assert found["GraceTime"] == ("warn", "60 s")
    assert found["MaxArraySize"] == ("pass", f"{MAX_ARRAY_SIZE}: arrays of at most {MAX_ARRAY_SIZE - 1}")
    assert found["accounting"] == ("warn", "off")
    assert found["scontrol on compute nodes"] == ("pass", "answers")
    assert found["runs folder on a node"] == ("pass", "runs")
    assert found["python on a node"] == ("pass", sys.executable)
    assert found["data"][0] == found["W&B login"][0] == "pass"
    assert {"python", "torch", "gpu", "file locks", "shared file system", "disk"} <= set(found)
    for check in checks.values():
        assert check["verdict"] == "pass" or check["advice"], check
    assert answer.returncode == (1 if any(check["verdict"] == "fail" for check in checks.values()) else 0)
    wrong = lab.repro("doctor", "--scale", "smoke", *SMALL, "launcher.partition=nowhere", code=1).stdout
    assert re.search(r"^fail  partition +nowhere: .*-> sinfo lists them", wrong, re.MULTILINE)


def test_a_launch_without_a_terminal_submits_nothing(lab: Lab) -> None:
    answer = lab.repro(
        "launch", "table1", ROW, "--scale", "smoke", "launcher=slurm", "launcher.gpus_per_node=0", code=2
    )
    assert "table1 at scale smoke: 1 planned; a launch would start 1" in answer.stdout
    assert "use --yes to start them" in answer.stderr
    assert not lab.records()


def test_a_refusal_of_sbatch_is_one_line_and_leaves_nothing_behind(lab: Lab) -> None:
    answer = lab.launch(ROW, "launcher.partition=nowhere", code=2)
    assert "repro: sbatch: " in answer.stderr
    assert "invalid partition" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert lab.state(ROW) == "planned"
    assert not list((lab.folder / "runs" / ".launch" / "arrays").iterdir())


def test_a_failing_row_disturbs_no_other_and_accounting_knows(cluster_with_accounting: OneNode, tmp_path: Path) -> None:
    lab = Lab(cluster_with_accounting, tmp_path)
    bad = ("deit_tiny/dense deit_tiny/omp-30", "recipe.warmup_epochs=0", "recipe.lr=1e30")
    lab.launch(*bad)  # 0: all of it is in the queue, however soon it fails there
    lab.launch(f"{ROW} deit_tiny/svite-30", "recipe.warmup_epochs=0")
    long, endless = "deit_tiny/svite-40", ("recipe.warmup_epochs=0", "recipe.epochs=5000")
    lab.launch(long, *endless)
    lab.wait_update(long, 5)
    lab.node.run("scontrol", "requeue", lab.record(long).status().job_id or "")
    lab.wait_state(long, "requeued")
    stopped = lab.record(long).status()
    lab.wait_state(long, "running")
    lab.wait_update(long, stopped.update + 1)
    assert "cancelling job" in lab.repro("cancel", "table1", long, "--scale", "smoke", *SMALL, *endless).stdout
    lab.wait_empty()
    states = {row: record.status() for row, record in lab.records().items()}
    good = (ROW, "deit_tiny/svite-30")
    assert [states[row].state for row in (*good, "deit_tiny/dense")] == ["done", "done", "failed"]
    # `afterok` is right about the failure: the run that starts from dense was never started.
    assert lab.record("deit_tiny/omp-30").latest_attempt() == 0

    def known(row: str) -> str:
        job_id = lab.job_id(row)
        return lab.node.run("sacct", "-X", "-n", "-P", "-o", "State,ExitCode", "-j", job_id).stdout.strip()

    lab.node.wait(lambda: known("deit_tiny/dense") == "FAILED|1:0")
    lab.node.wait(lambda: known("deit_tiny/omp-30").startswith("CANCELLED"))
    for row in good:
        assert known(row) == "COMPLETED|0:0"
    # One job, which came back and went on, and did not come back a second time.
    lab.node.wait(lambda: known(long).startswith("CANCELLED"))
    assert (states[long].state, states[long].attempt) == ("cancelled", 2)
    assert f"resumed from update {stopped.update}" in (lab.record(long).attempt_dir(2) / "stdout").read_text()
    ends = lab.node.run("sacct", "-D", "-X", "-n", "-P", "-o", "State", "-j", states[long].job_id or "").stdout
    assert [line.split()[0] for line in ends.splitlines()] == ["REQUEUED", "CANCELLED"]
    answer = lab.repro("status", "table1", *bad[0].split(), "--scale", "smoke", "--json", *SMALL, *bad[1:])
    seen = {entry["row"]: entry for entry in json.loads(answer.stdout)}
    assert seen["deit_tiny/omp-30"]["state"] == "dead"
    assert (
        "never started: it starts from deit_tiny/dense, which failed (its job: cancelled"
        in (seen["deit_tiny/omp-30"]["reason"])
    )
    # 1: two runs had failed before, and are left alone.
    again = lab.launch(*bad, code=1)
    assert "nothing to submit" in again.stdout
    assert "failed: deit_tiny/dense: the loss is not finite" in again.stderr
    assert "failed: deit_tiny/omp-30: starts from deit_tiny/dense, which is not done" in again.stderr
    checks = json.loads(lab.repro("doctor", "--scale", "smoke", "--json", code=None).stdout)
    assert {"name": "accounting", "verdict": "pass", "found": "accounting_storage/slurmdbd", "advice": ""} in checks
