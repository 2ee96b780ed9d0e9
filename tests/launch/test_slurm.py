"""Slurm's commands, answered by shell scripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from repro.errors import UserError
from repro.launch import slurm


def test_a_controller_that_is_down_gets_one_of_many_commands(cluster: FakeSlurm) -> None:
    ids = [str(number) for number in range(slurm.IDS_PER_COMMAND + 1)]
    cluster.refuses("Kill job error: Unable to contact slurm controller (connect failure)", *ids)
    assert set(slurm.cancel(ids)) == set(ids)
    assert cluster.cancelled == [" ".join(ids[:-1])]


def test_an_installation_without_a_cluster_has_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho 'squeue: fatal: Could not establish a configuration source' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UserError) as raised:
        slurm.queue()
    assert str(raised.value) == (
        "squeue: fatal: Could not establish a configuration source; set SLURM_CONF, or run this on a login node"
    )


def test_only_the_cluster_of_the_job_around_us_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_MEM_PER_CPU", "SLURM_NTASKS", "SRUN_DEBUG", "PMI_RANK")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name in names:
        monkeypatch.setenv(name, "1")
    assert set(names) <= set(slurm.environment()), "outside of any job they are the user's own"
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert {*names, "SLURM_JOB_ID"} & set(slurm.environment()) == {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}


def test_jobs_of_other_names_are_not_ours(cluster: FakeSlurm) -> None:
    (cluster.folder / "queue").write_text(
        "7|repro-table1-x|RUNNING|node1|None\n8|other|RUNNING|node1|None\nbroken name\n"
    )
    assert slurm.queue() == {"7": slurm.Job("7", "repro-table1-x", "RUNNING", "", "node1")}
