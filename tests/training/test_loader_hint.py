"""What a training says of the time that it waits for its images, and where a person sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from rich.console import Console
from small_runs import Kept, small_config, trainer

from repro.config import Data
from repro.config.compose import compose
from repro.cores import cores_of_rank
from repro.launch.plan import plan
from repro.launch.status import run_statuses
from repro.launch.status_table import status_table
from repro.runs.record import Record
from repro.tables.loader import load_table
from repro.training.attempt import EXIT_DONE, execute
from repro.training.loader_hint import LoaderHint, loader_hint


def entries(*shares: float | None) -> list[dict[str, Any]]:
    return [{"kind": "train", "update": n, "loss": 1.0, "loader_share_pct": share} for n, share in enumerate(shares)]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((90.0, 9.9, 90.0, 3.0), []),  # workers that start, once an epoch
        ((5.0, 10.1, 34.2, 80.0, 80.0), ["34 %"]),  # said once
        ((20.0, None, 20.0), ["20 %"]),  # an evaluation between
    ],
)
def test_a_hint_is_told_once_at_the_second_entry_above_the_limit(
    shares: tuple[float | None, ...], expected: list[str]
) -> None:
    told: list[str] = []
    sink = LoaderHint(lambda share: f"{share:.0f} %", told.append)
    for entry in entries(*shares):
        sink.write(entry)
    assert told == expected


def data(*overrides: str) -> Data:
    return compose(["data=imagefolder", "data.root=/x", *overrides]).data


def test_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    begins = "loading took 34 % of the time between two log entries; try "
    pil = data("data.workers=4", "data.decoder=pil")
    assert loader_hint(34.2, pil, "pil", is_random=True, in_shards=False, processes=2) == (
        f"{begins}data.workers=8 (now 4; 8 cores for each process), or data.decoder=fast, "
        "or pack the files into shards (repro shards)"
    )
    assert loader_hint(34.2, data("data.workers=8"), "fast", is_random=True, in_shards=True, processes=2) == (
        f"{begins}more cores for each process"
    )
    digits = compose(["data=digits"]).data
    assert "recipe.micro_batch" in loader_hint(34.2, digits, None, is_random=False, in_shards=False, processes=1)
    videos = compose(["data=kinetics400", "data.root=/x", "backbone=timesformer_base", "scale=paper"]).data
    said = loader_hint(34.2, videos, None, is_random=True, in_shards=False, processes=1)
    assert said == f"{begins}data.workers=16 (now 10; 16 cores for each process)"
    archive = compose(["scale=mini", "data.root=/x", "data.workers=4"]).data  # it has no decoder, and no files to pack
    said = loader_hint(34.2, archive, None, is_random=True, in_shards=False, processes=1)
    assert said == f"{begins}data.workers=16 (now 4; 16 cores for each process)"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 4),  # 16 cores that 4 ranks share
        ({"SLURM_CPUS_PER_TASK": "10", "SLURM_STEP_NUM_TASKS": "4", "WORLD_SIZE": "4"}, 10),  # each rank a task of srun
        ({"SLURM_CPUS_PER_TASK": "24", "SLURM_STEP_NUM_TASKS": "4", "WORLD_SIZE": "4"}, 16),  # bound to fewer
        ({"SLURM_CPUS_PER_TASK": "64", "SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "8"}, 4),  # torchrun in each of two
        ({"SLURM_CPUS_PER_TASK": "16", "WORLD_SIZE": "4"}, 4),  # torchrun in a batch script
    ],
)
def test_a_rank_has_its_tasks_cores_or_its_share(
    environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cores_of_rank(4) == expected
    assert cores_of_rank(100) >= 1


def test_each_training_entry_has_the_share(tmp_path: Path) -> None:
    kept = Kept()
    trainer(small_config("method=dense"), tmp_path, kept=kept).run()
    shares = [entry["loader_share_pct"] for entry in kept.entries if entry["kind"] == "train"]
    assert shares
    assert all(0 < share <= 100 for share in shares)


def test_a_run_that_waits_for_its_images_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JPEG files that take long to decode, and a model that takes none: in the log, the record and the status."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 1)):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (400, 500, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    (row,) = load_table("table1").select(["deit_tiny/dense"])
    overrides = [
        *("data=imagefolder", f"data.root='{tmp_path / 'images'}'", "data.workers=0", "data.images_per_epoch=null"),
        *("model.image_size=16", "model.patch_size=8", "model.in_chans=3", "model.num_classes=2", "model.depth=1"),
        *("recipe.global_batch=4", "recipe.micro_batch=4", "recipe.epochs=2", "run.log_every_updates=2"),
        *("tracker=none", "data.limit_train=null", "data.limit_test=null"),
    ]
    (run,) = plan(load_table("table1"), [row], "smoke", [0], tmp_path / "runs", overrides)
    run.record.create(run.config, "table1", row.id)
    assert execute(run.record.path) == EXIT_DONE
    said = [line for line in capsys.readouterr().out.splitlines() if "loading took" in line]
    assert len(said) == 1
    record = Record(run.record.path)
    assert record.status().hint == said[0]
    assert record.provenance()["data_decoder"] == "fast"
    assert "pillow" in record.provenance()["versions"]
    # While it runs, a status shows both; afterwards neither.
    assert "loader" not in shown(run_statuses([run], None))
    record.set_status(record.status().moved("running"))
    (record.path / "result.json").unlink()
    (again,) = plan(load_table("table1"), [row], "smoke", [0], tmp_path / "runs", overrides)
    with FileLock(record.path / "lock"):  # as a process that executes the run
        text = shown(run_statuses([again], None))
    assert f"deit_tiny/dense: {said[0]}" in text
    assert "loader " in text.splitlines()[1]


def shown(entries: Any) -> str:
    console = Console(width=400, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.capture() as captured:
        console.print(status_table("table1", entries))
    console.file.close()
    return captured.get()
