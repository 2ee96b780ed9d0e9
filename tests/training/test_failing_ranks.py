"""If one rank cannot continue, all ranks stop at once, with the reason."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from ranks import Machine, two_ranks

from repro.config.compose import compose
from repro.distributed import join_world
from repro.runs.record import Record, record_for
from repro.runs.status import EXIT_STOPPED
from repro.tables.loader import load_table
from repro.training.attempt import EXIT_FAILED, execute

ROW = load_table("table1").select(["deit_tiny/dense"])[0]


def new_record(root: Path, *overrides: str) -> Record:
    config = compose([*ROW.overrides, "scale=smoke", "tracker=none", *overrides])
    made = record_for(root, config, "table1", ROW.id)
    made.create(config, "table1", ROW.id)
    return made


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return new_record(tmp_path)


@pytest.fixture
def machines(tmp_path: Path) -> list[Machine]:
    """Two machines without a GPU, each with a working directory of its own."""
    folders = [tmp_path / f"machine{rank}" for rank in range(2)]
    for folder in folders:
        folder.mkdir()
    return [Machine(folder, {"SLURMD_NODENAME": "node7"}) for folder in folders]


def test_all_ranks_leave_a_run_that_another_process_holds(
    record: Record, machines: list[Machine], tmp_path: Path
) -> None:
    with FileLock(record.path / "lock"):
        first, second = two_ranks(record, machines, tmp_path)
    assert (first[0], second[0]) == (EXIT_STOPPED, EXIT_STOPPED)
    assert "stopped by an older attempt, which still holds the lock of this run after 0.5 s" in first[1]
    assert "stopped by another rank, which stopped while taking the run" in second[1]
    assert "Traceback" not in first[1] + second[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_without_images_fails_the_run_on_all_ranks(machines: list[Machine], rank: int, tmp_path: Path) -> None:
    for split, label in itertools.product(("train", "val"), "ab"):
        folder = machines[1 - rank].folder / "images" / split / label
        folder.mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16)).save(folder / f"{index}.png")
    record = new_record(
        tmp_path,
        *("data=imagefolder", "data.root=images", "data.workers=0", "data.images_per_epoch=null"),
        *("model.image_size=16", "model.patch_size=8", "model.in_chans=3", "model.num_classes=2", "model.depth=1"),
        *("data.limit_train=null", "data.limit_test=null", "recipe.global_batch=4", "recipe.micro_batch=2"),
    )
    ranks = two_ranks(record, machines, tmp_path)
    assert [code for code, _ in ranks] == [EXIT_FAILED, EXIT_FAILED]
    no_images, peer = "data.root=images", "another rank failed while reading its data; see its stderr"
    assert f"failed: {no_images}" in ranks[rank][1]
    assert f"failed: {peer}" in ranks[1 - rank][1]
    assert "Traceback" not in ranks[0][1] + ranks[1][1]
    status = record.status()
    assert status.state == "failed"
    assert (status.reason or "").startswith(no_images if rank == 0 else peer)


@pytest.mark.parametrize(
    ("launcher", "rank", "message"),
    [
        ("launcher=slurm", 0, "node7 has no usable GPU, but the launcher requests some"),
        ("launcher=slurm", 1, "node7 has no usable GPU, but the launcher requests some"),
        ("launcher=inline", 1, "ranks of one run have different devices (cpu on node7, cuda on node7)"),
    ],
)
def test_a_rank_without_a_gpu_fails_the_run_before_a_group_is_formed(
    tmp_path: Path, machines: list[Machine], launcher: str, rank: int, message: str
) -> None:
    """One rank would choose gloo and the other nccl, and both would wait; or both would train on a CPU for years."""
    record = new_record(tmp_path, launcher)
    machines[1 - rank] = replace(machines[1 - rank], has_gpu=True)
    ranks = two_ranks(record, machines, tmp_path)
    assert [code for code, _ in ranks] == [EXIT_FAILED, EXIT_FAILED]
    assert all(message in text and "Traceback" not in text for _, text in ranks), ranks
    status = record.status()
    assert (status.state, (status.reason or "").startswith(message)) == ("failed", True)


def test_auto_uses_no_cpu_if_the_launcher_requests_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert execute(record.path, log=lambda _: None) == EXIT_FAILED
        assert "launcher.exclude=node7 avoids it" in (record.status().reason or "")
    assert not compose(["launcher=slurm", "launcher.gpus_per_node=0"]).launcher.wants_gpus
    assert not compose(["launcher=local"]).launcher.wants_gpus
    assert join_world("cpu", wants_gpus=True).device == torch.device("cpu")
