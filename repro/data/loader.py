"""Batches for training and evaluation. What a batch holds is a function of its place, not of how it was reached.

The order of an epoch comes from (seed, epoch), the augmentation of an image from (seed, epoch, position in the epoch).
So a run resumed in the middle of an epoch, with other workers or on another number of devices, sees what it would have
seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.data.distributed_sampler import RepeatAugSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from repro.data.splits import Images
from repro.data.unfinished import UnfinishedBatch, View
from repro.data.workers import Stream, ignore_signals
from repro.errors import UserError
from repro.seeding import begin_stream, kept, stream_seed


def epoch_order(num_images: int, seed: int, epoch: int, repeats: int) -> Tensor:
    """The images of an epoch in order: int64 indices of shape (num_images,).

    With one repeat, a permutation. With more, repeated augmentation as DeiT trains with it: every image of a
    permutation stands `repeats` times in a row, and the epoch ends after `num_images` positions, so a third of the
    images are seen three times. Rank r of w takes positions r, r + w, r + 2w, ...
    Source: github.com/facebookresearch/deit, samplers.py (RASampler), through timm's copy.
    """
    sampler = RepeatAugSampler(
        range(num_images),
        num_replicas=1,
        rank=0,
        num_repeats=repeats,
        selected_round=0,  # the original rounds the length down to 256s; here an epoch is as long as schedules count it
    )
    sampler.set_epoch(stream_seed("order", seed, epoch))
    return torch.tensor(list(sampler))


class TrainLoader:
    """Micro-batches of one rank, from any update of any epoch on.

    An optimizer update takes `global_batch` consecutive positions of the epoch's order over all ranks, as
    `accumulate` micro-batches of `micro` images on each; an incomplete last update is dropped. `micro` is
    `micro_batch`, or the rank's whole share of the update where that is smaller.
    Raises `UserError` where the global batch cannot be shared out so, or is more than the images there are.
    """

    def __init__(
        self,
        dataset: Images,
        *,
        global_batch: int,
        micro_batch: int,
        seed: int,
        repeats: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
    ) -> None:
        if global_batch > len(dataset):
            raise UserError(
                f"recipe.global_batch={global_batch}: there are {len(dataset)} training images; set at most that"
            )
        if global_batch % world:
            raise UserError(
                f"recipe.global_batch={global_batch}: not divisible by the {world} processes; "
                f"set recipe.global_batch to a multiple of {world}"
            )
        share = global_batch // world
        micro = min(micro_batch, share)
        if share % micro:
            raise UserError(
                f"recipe.global_batch={global_batch}: not divisible by recipe.micro_batch={micro} on {world} "
                f"process{'es' if world > 1 else ''}; set recipe.micro_batch to a divisor of {share}"
            )
        self.dataset = dataset
        self.global_batch = global_batch
        self.micro = micro
        self.accumulate = share // micro
        self.updates_per_epoch = len(dataset) // global_batch
        self.seed = seed
        self.repeats = repeats
        self.workers = workers
        self.rank = rank
        self.world = world
        self.device = device or torch.device("cpu")

    def batches(self, epoch: int, first_update: int = 0) -> Stream:
        """This rank's micro-batches of the epoch from optimizer update `first_update` (counted from 0) on.

        Images float32 (micro, channels, height, width), labels int64 (micro,); `accumulate` of them are one update.
        What is finished by the batch is so on the loader's device, all else is on the CPU.
        Where it is left before its end, `close` the stream. Raises `ValueError` for an update beyond the epoch.
        """
        if not 0 <= first_update <= self.updates_per_epoch:
            raise ValueError(f"first_update={first_update} is not in [0, {self.updates_per_epoch}]")
        order = epoch_order(len(self.dataset), self.seed, epoch, self.repeats)
        places = range(first_update * self.global_batch, self.updates_per_epoch * self.global_batch)
        mine = torch.arange(places.start, places.stop)[self.rank :: self.world]
        return _stream(
            _Sampled(self.dataset, ("augment", self.seed, epoch)),
            _Batches(positions=mine, indices=order[mine], size=self.micro),
            self.workers,
            self.device.type == "cuda",
            self.device,
        )


def evaluation_batches(
    dataset: Images, batch_size: int, workers: int, rank: int = 0, world: int = 1, pin_memory: bool = False
) -> Stream:
    """This rank's test images, in order: over all ranks each image exactly once, the last batch as short as it is.

    Images float32 (at most `batch_size`, channels, height, width), labels int64. (timm's distributed loader repeats
    images until all ranks have as many, which moves the accuracy.)
    """
    mine = torch.arange(len(dataset))[rank::world]
    return _stream(_Sampled(dataset, ("evaluate",)), _Batches(mine, mine, batch_size), workers, pin_memory)


@dataclass(frozen=True, eq=False)
class _Batches:
    """A batch sampler: lists of (position in the epoch, index of the image)."""

    positions: Tensor
    indices: Tensor
    size: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.positions), self.size):
            group = slice(start, start + self.size)
            yield list(zip(self.positions[group].tolist(), self.indices[group].tolist(), strict=True))

    def __len__(self) -> int:
        return -(-len(self.positions) // self.size)


@dataclass(frozen=True, eq=False)
class _Sampled(Dataset[Any]):
    """Images at positions, each drawn from the stream of its position."""

    images: Images
    stream: tuple[int | str, ...]

    def __getitems__(self, places: list[tuple[int, int]]) -> list[Any]:
        """A batch at once: keeping the generators costs five times what seeding them does."""
        try:
            if not self.images.is_random:
                return [self.images[index] for _, index in places]
            with kept():
                return [self._drawn(position, index) for position, index in places]
        except UserError as error:
            return [error]  # raised where the batch is taken: torch would wrap it in a worker's traceback

    def _drawn(self, position: int, index: int) -> tuple[Any, int]:
        begin_stream(*self.stream, position)
        return self.images[index]


def _collate(samples: list[Any]) -> Any:
    if isinstance(samples[0], UserError):
        return samples[0]
    if isinstance(samples[0][0], View):
        views, labels = zip(*samples, strict=True)
        return UnfinishedBatch.of(views, default_collate), torch.tensor(labels)
    return default_collate(samples)


def _stream(
    dataset: Dataset[Any],
    batches: Iterable[list[Any]],
    workers: int,
    pin_memory: bool,
    device: torch.device | None = None,
) -> Stream:
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        multiprocessing_context="fork" if workers else None,  # the dataset is shared, not pickled
        generator=torch.Generator(),  # otherwise every pass takes a number from torch's global generator
    )
    return Stream(loader, device)
