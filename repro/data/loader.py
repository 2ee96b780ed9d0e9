"""Batches for training and evaluation, as a function of their position in the training.

The order of an epoch depends only on (seed, epoch), and the augmentation of an image on (seed, epoch, position in the
epoch). So a run that resumes in the middle of an epoch, with another number of workers or devices, sees the same
images in every update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from repro.data.in_memory import ImagesInMemory
from repro.data.shared_memory import is_shared_memory_error, shared_memory_error
from repro.data.splits import Images
from repro.data.uint8_batch import Uint8Batch, Uint8Image
from repro.data.workers import Stream, ignore_signals
from repro.errors import UserError, count_of
from repro.seeding import generator, preserved_generators, seed_generators


def epoch_order(num_images: int, seed: int, epoch: int, repeats: int) -> Tensor:
    """Return the order of the images in an epoch: int64 indices (num_images,).

    With one repeat, this is a permutation. With more, it is DeiT's repeated augmentation: every image of a permutation
    appears `repeats` times in a row, and the epoch ends after `num_images` positions (DeiT rounds this number down to a
    multiple of 256, but schedules here count every image). Rank r of w takes positions r, r + w, r + 2w, and so on.
    Source: github.com/facebookresearch/deit, samplers.py (RASampler).
    """
    permutation = torch.randperm(num_images, generator=generator("order", seed, epoch))
    return permutation.repeat_interleave(repeats)[:num_images]


@dataclass(eq=False)
class TrainLoader:
    """The micro-batches of one rank, which can start at any update of any epoch.

    An optimizer update takes `global_batch` consecutive positions of the epoch's order over all ranks, as `accumulate`
    micro-batches of `micro` images on each rank. An incomplete last update is dropped. `micro` is `micro_batch`, or the
    rank's share of the update if that is smaller. Raises `UserError` if the global batch cannot be divided in this way,
    or is larger than the data set.
    """

    dataset: Images
    _: KW_ONLY
    global_batch: int
    micro_batch: int
    seed: int
    repeats: int
    workers: int
    rank: int = 0
    world: int = 1
    device: torch.device | None = None

    def __post_init__(self) -> None:
        global_batch, world = self.global_batch, self.world
        if global_batch > len(self.dataset):
            raise UserError(
                f"recipe.global_batch={global_batch}: there are {count_of(len(self.dataset), 'training image')}; "
                "set at most that"
            )
        if global_batch % world:
            raise UserError(
                f"recipe.global_batch={global_batch}: not divisible by the {world} processes; "
                f"set recipe.global_batch to a multiple of {world}"
            )
        share = global_batch // world
        micro = min(self.micro_batch, share)
        if share % micro:
            raise UserError(
                f"recipe.global_batch={global_batch}: not divisible by recipe.micro_batch={micro} on "
                f"{count_of(world, 'process', 'processes')}; set recipe.micro_batch to a divisor of {share}"
            )
        self.micro = micro
        self.accumulate = share // micro
        self.updates_per_epoch = len(self.dataset) // global_batch

    def batches(self, epoch: int, first_update: int = 0) -> Stream:
        """Return this rank's micro-batches of an epoch, starting at optimizer update `first_update` (from 0).

        A micro-batch is a pair of images, float32 (micro, channels, height, width), and labels, int64 (micro,). One
        update takes `accumulate` of them. Images are on the CPU, or on the loader's device if they were augmented as
        uint8. To stop before the end, `close` the stream. Raises `ValueError` for an update beyond the epoch.
        """
        if not 0 <= first_update <= self.updates_per_epoch:
            raise ValueError(f"first_update={first_update} is not in [0, {self.updates_per_epoch}]")
        order = epoch_order(len(self.dataset), self.seed, epoch, self.repeats)
        start, stop = first_update * self.global_batch, self.updates_per_epoch * self.global_batch
        positions = torch.arange(start, stop)[self.rank :: self.world]
        return _stream(
            _SeededImages(self.dataset, ("augment", self.seed, epoch)),
            _BatchSampler(positions, indices=order[positions], size=self.micro),
            self.workers,
            self.device is not None and self.device.type == "cuda",
            self.device,
        )


def evaluation_batches(
    dataset: Images, batch_size: int, workers: int, rank: int = 0, world: int = 1, pin_memory: bool = False
) -> Stream:
    """Return this rank's test images in order. Over all ranks, each image appears exactly once.

    A batch is a pair of images, float32 (at most `batch_size`, channels, height, width), and labels, int64. (timm's
    distributed loader repeats images until all ranks have the same number, which changes the accuracy.)
    """
    indices = torch.arange(len(dataset))[rank::world]
    sampler = _BatchSampler(indices, indices, batch_size)
    return _stream(_SeededImages(dataset, ("evaluate",)), sampler, workers, pin_memory)


@dataclass(frozen=True, eq=False)
class _BatchSampler:
    """Yields batches of pairs (position in the epoch, index of the image)."""

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
class _BatchesInMemory:
    """The batches of a sampler from images in memory, each taken at once. torch's loader would stack single images."""

    images: ImagesInMemory
    batches: _BatchSampler
    num_workers: ClassVar[int] = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in self.batches.indices.split(self.batches.size):
            yield self.images.images[chosen], self.images.labels[chosen]


@dataclass(frozen=True, eq=False)
class _SeededImages(Dataset[Any]):
    """Images that are augmented with the random stream of their position in the epoch."""

    images: Images
    stream: tuple[int | str, ...]

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[Any]:
        """Load a whole batch, because saving the generators takes five times as long as seeding them."""
        try:
            if not self.images.is_random:
                return [self.images[index] for _, index in batch]
            with preserved_generators():
                return [self._augmented(position, index) for position, index in batch]
        except UserError as error:
            return [error]  # `Stream` raises it; torch would wrap it in the traceback of a worker

    def _augmented(self, position: int, index: int) -> tuple[Any, int]:
        seed_generators(*self.stream, position)
        return self.images[index]


def _collate(samples: list[Any]) -> Any:
    if isinstance(samples[0], UserError):
        return samples[0]
    try:
        images, labels = zip(*samples, strict=True)
        is_uint8 = isinstance(images[0], Uint8Image)
        batch = Uint8Batch.of(images, default_collate) if is_uint8 else default_collate(list(images))
        targets = torch.tensor(labels)
        if get_worker_info() is not None:
            # Otherwise the thread that sends the batch moves it to shared memory. If that fails there, the error is
            # only printed, and the batch never arrives.
            for tensor in (targets, batch.noise) if is_uint8 else (targets,):
                tensor.share_memory_()
    except RuntimeError as error:
        if is_shared_memory_error(error):
            return shared_memory_error()
        raise
    return batch, targets


def _stream(
    dataset: _SeededImages,
    batches: _BatchSampler,
    workers: int,
    pin_memory: bool,
    device: torch.device | None = None,
) -> Stream:
    if isinstance(dataset.images, ImagesInMemory) and not workers and not pin_memory:
        return Stream(_BatchesInMemory(dataset.images, batches))
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        multiprocessing_context="fork" if workers else None,  # the dataset is shared, not pickled
        generator=torch.Generator(),  # otherwise every pass would draw a number from torch's global generator
    )
    return Stream(loader, device)
