"""Where one rank cannot go on, the others leave with it, at once and with the reason."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from repro.composition import compose
from repro.paper_tables import load_table
from repro.runs.record import Record, record_for
from repro.runs.status import EXIT_STOPPED
from repro.training.distributed import join_world
from repro.training.task import EXIT_FAILED, execute

SCRIPT = Path(__file__).with_name("rank_of_a_run.py")
ROOT = Path(__file__).resolve().parents[2]
ROW = load_table("table1").select(["deit_tiny/dense"])[0]
SOON_S = 60  # two starts of torch on a busy machine; a collective that nobody answers takes 1800


def new_record(root: Path, *overrides: str) -> Record:
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", *overrides])
    made = record_for(root, config, "table1", ROW.id)
    made.create(config, "table1", ROW.id)
    return made


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return new_record(tmp_path)


def two_ranks(record: Record, *words: str) -> list[tuple[int, str]]:
    """Exit code and output of both ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(record.path), *words],
            env={**os.environ, **world, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=SOON_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def test_a_run_that_is_taken_is_left_by_all_ranks(record: Record) -> None:
    with FileLock(record.path / "lock"):
        first, second = two_ranks(record)
    assert (first[0], second[0]) == (EXIT_STOPPED, EXIT_STOPPED)
    assert "stopped by an older attempt that is still at this run: it has not left within 0.5 s" in first[1]
    assert "stopped by another rank, which stopped while taking the run" in second[1]
    assert "Traceback" not in first[1] + second[1]


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_without_images_fails_the_run_and_not_the_others_patience(record: Record, who: int) -> None:
    ranks = two_ranks(record, "images", str(who))
    assert [code for code, _ in ranks] == [EXIT_FAILED, EXIT_FAILED]
    assert "failed: no images on this node" in ranks[who][1]
    assert "failed: another rank failed while reading its data; see its stderr" in ranks[1 - who][1]
    assert "Traceback" not in ranks[0][1] + ranks[1][1]
    status = record.status()
    assert status.state == "failed"
    assert status.reason == (
        "no images on this node" if who == 0 else "another rank failed while reading its data; see its stderr"
    )


@pytest.mark.parametrize(
    ("launcher", "who", "message"),
    [
        ("launcher=slurm", 0, "node7 shows no GPU, and the launcher asks for some"),
        ("launcher=slurm", 1, "node7 shows no GPU, and the launcher asks for some"),
        ("launcher=inline", 1, "ranks of one run have different devices (cpu on node7, cuda on node7)"),
    ],
)
def test_a_rank_without_a_gpu_is_known_to_all_before_they_form_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, who: int, message: str
) -> None:
    """One would choose gloo and the other nccl, and wait for each other; or both a CPU, for years."""
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    record = new_record(tmp_path, launcher)
    ranks = two_ranks(record, "gpu", str(who))
    assert [code for code, _ in ranks] == [EXIT_FAILED, EXIT_FAILED]
    assert all(message in text and "Traceback" not in text for _, text in ranks), ranks
    status = record.status()
    assert (status.state, (status.reason or "").startswith(message)) == ("failed", True)


def test_auto_takes_no_cpu_where_gpus_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    for number, words in enumerate(
        (
            ["launcher=slurm"],
            ["launcher=slurm", "launcher.gpus_per_node=0", "launcher.gres='gpu:a100:1'"],
            ["launcher=slurm", "launcher.gpus_per_node=null", "launcher.extra={gpus-per-task: 1}"],
            ["launcher=local", "launcher.gpus_per_node=1"],
        )
    ):
        record = new_record(tmp_path / str(number), *words)
        assert execute(record.path, tell=lambda _: None) == EXIT_FAILED
        assert "launcher.exclude=node7 leaves it out" in (record.status().reason or "")
    assert not compose(["launcher=slurm", "launcher.gpus_per_node=0"]).launcher.wants_gpus
    assert not compose(["launcher=local"]).launcher.wants_gpus
    assert join_world("cpu", wants_gpus=True).device == torch.device("cpu")
