from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folders import folder_config
from torch import Tensor

from repro.data.loader import TrainLoader, epoch_order, evaluation_batches
from repro.data.splits import Images, load_splits
from repro.errors import UserError
from repro.seeding import stream_seed


@dataclass(frozen=True)
class Noise:
    """Image i is three random numbers, one from each generator; its label is i."""

    size: int
    is_random: bool = True

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        drawn = [random.random(), np.random.random_sample(), float(torch.rand(()))] if self.is_random else [0.0] * 3
        return torch.tensor(drawn).view(3, 1, 1), index

    def take(self, indices: Tensor) -> Images:
        raise NotImplementedError


def make(size: int = 23, **options: int) -> TrainLoader:
    defaults = {"global_batch": 4, "micro_batch": 2, "seed": 0, "repeats": 1, "workers": 0}
    return TrainLoader(Noise(size), **{**defaults, **options})  # type: ignore[arg-type]


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.equal(b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


def labels(batches: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    return [label.tolist() for _, label in batches]


# Order ---------------------------------------------------------------------------------------------------------------


def test_orders_by_hand() -> None:
    generator = torch.Generator().manual_seed(stream_seed("order", 3, 1))
    permutation = torch.randperm(7, generator=generator)
    assert epoch_order(7, seed=3, epoch=1, repeats=1).equal(permutation)
    a, b, c = permutation[:3].tolist()
    assert epoch_order(7, seed=3, epoch=1, repeats=3).tolist() == [a, a, a, b, b, b, c]


@given(st.integers(1, 600), st.integers(0, 5), st.integers(0, 5), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_an_epoch_shows_as_many_images_as_there_are(size: int, seed: int, epoch: int, repeats: int) -> None:
    order = epoch_order(size, seed, epoch, repeats).tolist()
    counts = list(Counter(order).values())
    assert len(order) == size
    assert set(order) <= set(range(size))
    assert counts[:-1] == [repeats] * (len(counts) - 1)  # in a row, the last cut short
    assert counts[-1] == size - repeats * (len(counts) - 1)
    assert order == epoch_order(size, seed, epoch, repeats).tolist()


def test_seeds_and_epochs_have_different_orders() -> None:
    orders = {tuple(epoch_order(50, seed, epoch, 1).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


# Batches -------------------------------------------------------------------------------------------------------------


def test_updates_and_micro_batches_by_hand() -> None:
    order = epoch_order(23, 0, 0, 1).tolist()
    loader = make()
    assert (loader.updates_per_epoch, loader.accumulate, loader.micro) == (5, 2, 2)
    assert labels(list(loader.batches(0))) == [order[i : i + 2] for i in range(0, 20, 2)]
    second = make(global_batch=8, rank=1, world=2)
    assert (second.updates_per_epoch, second.accumulate) == (2, 2)
    assert labels(list(second.batches(0))) == [[order[i], order[i + 2]] for i in (1, 5, 9, 13)]


def test_a_micro_batch_is_no_more_than_a_ranks_share() -> None:
    loader = make(global_batch=8, micro_batch=128, world=4, rank=3)
    assert (loader.micro, loader.accumulate) == (2, 1)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_ranks_share_the_batches_of_one(world: int, micro: int, accumulate: int, repeats: int, extra: int) -> None:
    batch = world * micro * accumulate
    options = {"size": 2 * batch + min(extra, batch - 1), "global_batch": batch, "repeats": repeats, "seed": 5}
    alone = list(make(micro_batch=batch, **options).batches(2))
    assert len(alone) == 2
    ranks = [list(make(micro_batch=micro, rank=rank, world=world, **options).batches(2)) for rank in range(world)]
    for update, (images, indices) in enumerate(alone):
        for rank, batches in enumerate(ranks):
            assert len(batches) == 2 * accumulate
            mine = batches[update * accumulate : (update + 1) * accumulate]
            assert torch.cat([image for image, _ in mine]).equal(images[rank::world])  # including the augmentation
            assert torch.cat([label for _, label in mine]).equal(indices[rank::world])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first_update", [0, 1, 3, 5])
def test_a_resumed_epoch_is_the_rest_of_the_epoch(workers: int, first_update: int) -> None:
    for rank, world, per_update in ((0, 1, 2), (1, 2, 1)):
        whole = list(make(repeats=3, rank=rank, world=world).batches(4))
        rest = list(make(repeats=3, rank=rank, world=world, workers=workers).batches(4, first_update))
        assert same(rest, whole[per_update * first_update :])


def test_an_update_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"first_update=6 is not in \[0, 5\]"):
        make().batches(0, 6)


def test_augmentation_depends_on_seed_epoch_and_position() -> None:
    def first(seed: int, epoch: int) -> Tensor:
        return torch.cat([image for image, _ in make(seed=seed, repeats=3).batches(epoch)]).flatten()

    drawn = torch.cat([first(seed, epoch) for seed in range(3) for epoch in range(3)])
    assert len(drawn.unique()) == len(drawn)  # the repeats of an image differ too
    assert first(1, 2).equal(first(1, 2))


def test_loading_leaves_the_global_generators_unchanged() -> None:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for workers in (0, 1):
        list(make(workers=workers).batches(0))
        list(evaluation_batches(Noise(3, is_random=False), 2, workers))
    assert random.getstate() == state[0]
    assert np.array_equal(np.random.get_state()[1], state[1][1])  # type: ignore[index]
    assert torch.get_rng_state().equal(state[2])


def test_jpeg_files_are_augmented_alike_in_any_process(flowers: Path) -> None:
    config = folder_config(flowers)
    train = load_splits(config.data, config.recipe, config.model).train
    here, there = (
        TrainLoader(train, global_batch=4, micro_batch=2, seed=1, repeats=3, workers=workers) for workers in (0, 2)
    )
    whole = list(here.batches(0))
    assert same(whole, list(there.batches(0)))
    assert same(whole[2:], list(there.batches(0, 1)))
    assert not same(whole, list(here.batches(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch": 24}, "recipe.global_batch=24: there are 23 training images; set at most that"),
        (
            {"world": 3},
            "recipe.global_batch=4: not divisible by the 3 processes; set recipe.global_batch to a multiple of 3",
        ),
        (
            {"global_batch": 20, "micro_batch": 3, "world": 2},
            "recipe.global_batch=20: not divisible by recipe.micro_batch=3 on 2 processes; "
            "set recipe.micro_batch to a divisor of 10",
        ),
        (
            {"micro_batch": 3},
            "recipe.global_batch=4: not divisible by recipe.micro_batch=3 on 1 process; "
            "set recipe.micro_batch to a divisor of 4",
        ),
    ],
)
def test_an_indivisible_batch_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make(**options)
    assert str(caught.value) == message


# Evaluation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_every_image_once(workers: int) -> None:
    batches = list(evaluation_batches(Noise(5, is_random=False), 2, workers))
    assert labels(batches) == [[0, 1], [2, 3], [4]]


@given(st.integers(0, 30), st.integers(1, 7), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_ranks_evaluate_every_image_once(size: int, batch: int, world: int) -> None:
    seen = [
        label
        for rank in range(world)
        for group in labels(list(evaluation_batches(Noise(size, is_random=False), batch, 0, rank, world)))
        for label in group
    ]
    assert sorted(seen) == list(range(size))


# Workers -------------------------------------------------------------------------------------------------------------


def test_workers_ignore_the_signals_of_a_preemption() -> None:
    whole = labels(list(make(size=200).batches(0)))
    stream = make(size=200, workers=2).batches(0)
    seen = [next(stream)]
    for worker in multiprocessing.active_children():
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT, signal.SIGINT):
            os.kill(worker.pid or 0, number)
    seen += list(stream)
    assert labels(seen) == whole


def test_workers_do_not_run_inherited_signal_handlers() -> None:
    # Not even while the worker starts.
    caught = []
    before = signal.signal(signal.SIGUSR2, lambda *_: caught.append(os.getpid()))
    try:
        stream = make(workers=1).batches(0)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGUSR2)
        assert len(list(stream)) == 10
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert caught == [os.getpid()]  # the training process receives signals again


def test_closing_ends_the_workers() -> None:
    stream = make(size=200, workers=2).batches(0)
    next(stream)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    stream.close()
    assert not any(worker.is_alive() for worker in workers)
    assert list(stream) == []


def test_a_stopped_worker_is_killed() -> None:
    stream = make(size=200, workers=1).batches(0)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGSTOP)
    stream.close()
    assert worker.exitcode == -signal.SIGKILL


SCRIPT = """
import multiprocessing, os, sys
from test_loader import make
stream = make(size=200, workers=1).batches(0)
next(stream)
print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("raise RuntimeError", 1), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_workers_end_with_their_process(ending: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=ending)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code
    (worker,) = ended.stdout.split()
    deadline = time.monotonic() + 20  # an orphaned worker checks for its parent every 5 s
    while Path(f"/proc/{int(worker)}").exists() and not _is_zombie(int(worker)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
