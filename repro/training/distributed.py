"""The ranks of one run: who we are, what we tell each other. One process without a launcher is a world of one."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
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


def join_world(device: str, wants_gpus: bool = False) -> World:
    """Find out rank and size from the environment that torchrun, or a job, sets, and join the process group.

    `wants_gpus`: whether GPUs were asked for, so that `auto` may not settle for less. Raises `UserError`, the same one
    on every rank, where one of them does not have its device or has one of another kind.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if size == 1 or dist.is_initialized():
        place = _place(device, wants_gpus)
    else:
        store, _, _ = next(rendezvous("env://", rank, size))
        place = _agreed(PrefixStore("devices", store), rank, size, lambda: _place(device, wants_gpus))
        # What ranks ask each other between updates goes from host to host; a GPU is not waited for.
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=PrefixStore("ranks", store), rank=rank, world_size=size)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    return World(rank, size, place)


def _place(device: str, wants_gpus: bool) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if device == "auto" and wants_gpus and not has_gpu:  # a broken driver, say: a CPU would train for years
        host = _host()
        raise UserError(
            f"{host} shows no GPU, and the launcher asks for some: look at nvidia-smi there. On Slurm "
            f"launcher.exclude={host} leaves it out; run.device=cpu trains without"
        )
    name = device if device != "auto" else ("cuda" if has_gpu else "cpu")
    try:
        place = torch.device(name)
    except RuntimeError:
        raise UserError(f"run.device={device}: no such device; valid: auto, cpu, cuda") from None
    if place.type != "cuda":
        return place
    if not has_gpu:
        raise UserError(f"run.device=cuda: torch sees no GPU on {_host()}; take run.device=cpu or check the driver")
    # Where a job gives each task one GPU of its own, that is number 0 for all of them.
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count() if place.index is None else place.index)


def _agreed(store: Store, rank: int, size: int, place: Callable[[], torch.device]) -> torch.device:
    """This rank's device, once every rank has one of the same kind; through the store, for there is no group yet."""
    found, trouble = None, ""
    try:
        found = place()
    except UserError as error:
        trouble = str(error)
    store.set(f"of {rank}", json.dumps([found.type if found else "", _host(), trouble]))
    every = [json.loads(store.get(f"of {each}")) for each in range(size)]
    troubles = [words for _, _, words in every if words]
    if not troubles and len({kind for kind, _, _ in every}) > 1:
        where = ", ".join(sorted({f"{kind} on {host}" for kind, host, _ in every}))
        troubles = [f"ranks of one run have different devices ({where}); say run.device=cpu, or leave out nodes"]
    if found is None or troubles:
        store.set(f"read by {rank}", "")
        if rank == 0:  # the store ends with this process
            store.wait([f"read by {each}" for each in range(size)])
        raise UserError(troubles[0])
    return found


def _host() -> str:
    """This machine, by Slurm's name for it in a job."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def leave_world() -> None:
    """Take the process group down, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
