"""Checkpoints that a kill or a disk has damaged."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import random
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
from small_runs import SHORT, VIT

from repro.config.compose import compose
from repro.errors import UserError
from repro.evaluation.finished_model import finished_weights
from repro.runs.record import record_for
from repro.training import checkpoint
from repro.training.attempt import EXIT_DONE, EXIT_FAILED, execute

CPU = torch.device("cpu")
KILLS = 50


@pytest.mark.slow
def test_killed_while_it_saves(tmp_path: Path) -> None:
    """Whatever the moment, the newest whole checkpoint is at most one behind what was reported as saved."""
    moments = random.Random(0)
    start = 0
    context = multiprocessing.get_context("fork")  # a server's children would import this file, fifty times
    for _ in range(KILLS):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_save_for_ever, args=(tmp_path, start, writer))
        process.start()
        writer.close()
        reader.recv()  # the first save of this process is on disk
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        reported = _last(reader, start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a checkpoint without its checksum yet
            state = checkpoint.load_latest(tmp_path, CPU)
        assert state is not None
        assert state["update"] >= reported, "a checkpoint that was saved is gone"
        assert torch.equal(state["weights"], torch.full((50000,), float(state["update"])))
        start = state["update"] + 1
    assert len(list(tmp_path.glob("update-*.pt"))) <= checkpoint.KEEP_LAST + 1


def _save_for_ever(folder: Path, start: int, writer: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(1)  # a fork has none of its parent's OpenMP threads, and would wait for them
    for update in range(start, start + 100_000):
        checkpoint.save(folder, update, {"update": update, "weights": torch.full((50000,), float(update))})
        writer.send(update)


def _last(reader: multiprocessing.connection.Connection, last: int) -> int:
    try:
        while reader.poll():
            last = reader.recv()
    except (EOFError, OSError):
        pass  # cut off by the kill
    return last


DAMAGES = ("truncated", "bit flipped", "empty", "unreadable", "no checksum", "checksum of another")


@pytest.mark.parametrize("damage", [*DAMAGES, "checksum bit flipped", "checksum unreadable"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    for update in (1, 2):
        checkpoint.save(tmp_path, update, {"update": update, "weights": torch.ones(1000)})
    newest = tmp_path / "update-000000002.pt"
    spoil(newest, damage)
    with pytest.warns(RuntimeWarning, match=r"update-000000002.pt is damaged; using the checkpoint before"):
        state = checkpoint.load_latest(tmp_path, CPU)
    assert state is not None
    assert state["update"] == 1
    assert checkpoint.load(checkpoint.update_path(tmp_path, 2), CPU) is None
    checkpoint.save(tmp_path, 2, {"update": 2, "weights": torch.zeros(1000)})  # the next attempt gets there again
    again = checkpoint.load_latest(tmp_path, CPU)
    assert again is not None
    assert float(again["weights"].sum()) == 0


def spoil(newest: Path, damage: str) -> None:
    """Damage a checkpoint or its checksum, as a disk does."""
    file = newest.with_suffix(".sha256") if damage.startswith("checksum") else newest
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    if damage == "truncated":
        file.write_bytes(content[:middle])
    elif damage == "bit flipped":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "checksum bit flipped":  # the highest one: no text any more
        file.write_bytes(bytes([content[0] ^ 128]) + content[1:])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage.endswith("unreadable"):  # Linux answers with EIO, whoever asks
        file.unlink()
        file.symlink_to("/proc/self/mem")
    elif damage == "no checksum":
        newest.with_suffix(".sha256").unlink()
    else:
        shutil.copy(newest.with_name("update-000000001.sha256"), file)
        newest.write_bytes(newest.read_bytes()[:-1] + b"x")


def test_nothing_begins_with_an_earlier_epoch_of_a_finished_run(tmp_path: Path) -> None:
    """Its result would rest on another model than the one whose accuracy the table shows."""
    dense = compose([*VIT, *SHORT, "method=dense"])
    origin = record_for(tmp_path, dense, "table1", "deit_tiny/dense")
    origin.create(dense, "table1", "deit_tiny/dense")
    assert execute(origin.path, log=lambda _: None) == EXIT_DONE
    checkpoints = sorted(origin.checkpoint_dir.glob("update-*.pt"))
    assert len(checkpoints) == 2
    finished = checkpoint.load_latest(origin.checkpoint_dir, CPU)
    assert finished is not None
    spoil(checkpoints[-1], "bit flipped")
    omp = compose([*VIT, *SHORT, "method=omp", "method.finetune.after=1"])
    begun = record_for(tmp_path, omp, "table1", "deit_tiny/omp-30")
    begun.create(omp, "table1", "deit_tiny/omp-30", starts_from=origin.path)
    assert execute(begun.path, log=lambda _: None) == EXIT_FAILED
    assert (
        f"starts from the weights of {origin.path}, which is finished, but its last checkpoint is missing or damaged"
        in (begun.status().reason or "")
    )
    with pytest.raises(UserError, match="the last checkpoint is missing or damaged"):
        finished_weights(origin, "last")
    assert finished_weights(origin, "best").keys() == finished["model"].keys()
    for damage in ("bit flipped", "truncated"):
        spoil(origin.checkpoint_dir / "best.pt", damage)
        with pytest.raises(UserError, match="the best checkpoint is missing or damaged"):
            finished_weights(origin, "best")
