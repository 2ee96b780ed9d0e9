"""The ranks of one run: who we are, what we tell each other. One process without a launcher is a world of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from repro.errors import UserError
from repro.training.interruption import Interrupted

T = TypeVar("T")


class PeerFailed(Exception):
    """This rank could go on; another one cannot, and has said why in its own log."""


@dataclass(frozen=True)
class World:
    """This process among the ranks of its run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the record."""
        return self.rank == 0

    def any_of(self, *flags: bool) -> list[bool]:
        """For each flag whether it is up on any rank. Every rank must call it."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([float(flag) for flag in flags])  # on the host: reading it must not wait for the device
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [bool(value) for value in values.tolist()]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks. Every rank must call it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def of_each(self, value: torch.Tensor) -> torch.Tensor:
        """The scalars of all ranks, (size,), bit for bit, on each of them. Every rank must call it."""
        values = torch.zeros(self.size, dtype=value.dtype, device=value.device)
        values[self.rank] = value
        return self.total(values)

    def together(self, what: str, action: Callable[[], T]) -> T:
        """Do what may fail or be interrupted on some ranks only, and leave it together: nobody waits for who is gone.

        Raises what `action` raised here; where it went well here, `Interrupted` or `PeerFailed` for what befell another
        rank. Every rank must call it. `what` completes "another rank failed while ...".
        """
        error: Exception | None = None
        try:
            value = action()
        except Exception as raised:
            error = raised
        stopped, failed = self.any_of(isinstance(error, Interrupted), not isinstance(error, Interrupted | None))
        if error is not None:
            raise error
        if failed:
            raise PeerFailed(f"another rank failed while {what}; see its stderr")
        if stopped:
            raise Interrupted(f"another rank, which stopped while {what}")
        return value

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def average_batch_norms(self, model: nn.Module) -> None:
        """Give every rank the mean over ranks of what batch norms have seen: each has counted its own images only.

        Running means and variances, as timm's `distribute_bn("reduce")`. Every rank must call it.
        """
        running = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if self.size == 1 or not running:
            return
        mean = torch.cat(running)
        dist.all_reduce(mean)
        mean /= self.size
        for buffer, part in zip(running, mean.split([len(buffer) for buffer in running]), strict=True):
            buffer.copy_(part)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as DDP, which averages gradients over ranks; the model itself in a world of one."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Buffers are not sent with every forward pass: after each update all ranks have the same ones.
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def join_world(device: str) -> World:
    """Find out rank and size from the environment that torchrun, or a job, sets, and join the process group.

    Raises `UserError` for a device that this machine does not have.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    name = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
    except RuntimeError:
        raise UserError(f"run.device={device}: no such device; valid: auto, cpu, cuda") from None
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("run.device=cuda: torch sees no GPU here; take run.device=cpu or check the driver")
        # Where a job gives each task one GPU of its own, that is number 0 for all of them.
        index = local_rank % torch.cuda.device_count() if place.index is None else place.index
        place = torch.device("cuda", index)
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        # What ranks ask each other between updates goes from host to host; a GPU is not waited for.
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=size)
    return World(rank, size, place)


def leave_world() -> None:
    """Take the process group down, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
