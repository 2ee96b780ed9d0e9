"""The ranks of one run and their collectives. A process without a launcher is a world of size 1."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
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
from repro.interruption import Interrupted

T = TypeVar("T")


class PeerFailed(Exception):
    """Another rank failed; its own log has the reason."""


@dataclass(frozen=True)
class World:
    """The rank and device of this process, and the number of ranks of its run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the record."""
        return self.rank == 0

    def any_rank(self, *flags: bool) -> list[bool]:
        """Return, for each flag, whether it is set on any rank. Every rank must call it."""
        if self.size == 1:
            return list(flags)
        # On the CPU, so that reading does not synchronize the GPU.
        values = torch.tensor([float(flag) for flag in flags])
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [bool(value) for value in values.tolist()]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over ranks. Every rank must call it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_gather(self, value: torch.Tensor) -> torch.Tensor:
        """Gather a scalar from every rank, as a tensor (size,). Every rank must call it."""
        values = torch.zeros(self.size, dtype=value.dtype, device=value.device)
        values[self.rank] = value
        return self.total(values)

    def on_every_rank(self, what: str, action: Callable[[], T]) -> T:
        """Run `action` on every rank, and raise on all ranks if one fails, so that none hangs in a collective.

        Raises the error of this rank's `action` or, if that succeeded, `Interrupted` or `PeerFailed` for the error of
        another rank. Every rank must call it. `what` completes "another rank failed while ...".
        """
        error: Exception | None = None
        try:
            value = action()
        except Exception as raised:
            error = raised
        stopped, failed = self.any_rank(isinstance(error, Interrupted), not isinstance(error, Interrupted | None))
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
        """Average the running means and variances of batch norm over ranks, because each sees only its own images.

        Equivalent to timm's `distribute_bn` with `reduce=True`. Every rank must call it.
        """
        if self.size == 1:
            return
        running = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if not running:
            return
        mean = torch.cat(running)
        dist.all_reduce(mean)
        mean /= self.size
        for buffer, part in zip(running, mean.split([len(buffer) for buffer in running]), strict=True):
            buffer.copy_(part)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model in DDP, which averages gradients over ranks; return it unchanged in a world of size 1."""
        if self.size == 1:
            return model
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Buffers need not be broadcast in each forward pass: they are the same on all ranks after each update.
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def join_world(device: str, wants_gpus: bool = False, option: str = "run.device=") -> World:
    """Read the rank and world size from the environment of torchrun or of a job, and join the process group.

    The arguments are those of `find_device`. Raises the same `UserError` on every rank if the device of any rank is
    missing or of a different type.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if size == 1 or dist.is_initialized():
        own_device = find_device(device, wants_gpus, option)
    else:
        store, _, _ = next(rendezvous("env://", rank, size))
        own_device = _agreed(PrefixStore("devices", store), rank, size, lambda: find_device(device, wants_gpus, option))
        # Collectives on CPU tensors between updates use gloo, so that they do not synchronize the GPU.
        backend = "cpu:gloo,cuda:nccl" if own_device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=PrefixStore("ranks", store), rank=rank, world_size=size)
    if own_device.type == "cuda":
        torch.cuda.set_device(own_device)
    return World(rank, size, own_device)


def find_device(device: str, wants_gpus: bool = False, option: str = "run.device=") -> torch.device:
    """Return the device of this rank. Raises `UserError` if it is not there.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        wants_gpus: Whether the launcher requests GPUs, so that `auto` must not fall back to the CPU.
        option: How the user sets the device, for messages.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto" and wants_gpus and not has_gpu:  # for example a broken driver
        host = _host()
        raise UserError(
            f"{host} has no usable GPU, but the launcher requests some: check nvidia-smi there. On Slurm, "
            f"launcher.exclude={host} avoids it; run.device=cpu trains without GPUs"
        )
    name = device if device != "auto" else ("cuda" if has_gpu else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"{option}{device}: no such device; valid: auto, cpu, cuda")
    found = torch.device(name)
    if found.type != "cuda":
        return found
    if not has_gpu:
        raise UserError(f"{option}{device}: torch finds no GPU on {_host()}; use {option}cpu, or check the driver")
    # If each task of a job sees a single GPU, the index of that GPU is 0 in every task.
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count() if found.index is None else found.index)


def _agreed(store: Store, rank: int, size: int, find: Callable[[], torch.device]) -> torch.device:
    """Return this rank's device once all ranks agree on its type, through the store: there is no process group yet."""
    device, message = None, ""
    try:
        device = find()
    except UserError as error:
        message = str(error)
    store.set(f"of {rank}", json.dumps([device.type if device else "", _host(), message]))
    answers = [json.loads(store.get(f"of {other}")) for other in range(size)]
    messages = [text for _, _, text in answers if text]
    if not messages and len({kind for kind, _, _ in answers}) > 1:
        devices = ", ".join(sorted({f"{kind} on {host}" for kind, host, _ in answers}))
        messages = [f"ranks of one run have different devices ({devices}); set run.device=cpu, or exclude nodes"]
    if device is None or messages:
        store.set(f"read by {rank}", "")
        if rank == 0:  # the store ends with this process
            store.wait([f"read by {other}" for other in range(size)])
        raise UserError(messages[0])
    return device


def _host() -> str:
    """Return the name of this machine; in a Slurm job, its node name."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def leave_world() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_mean(score: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all ranks, or the tensor itself if there is no process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return score
    total = score.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def broadcast_from_rank0(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Return the numbers of rank 0; those of other ranks may differ, because they sum in another order."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(numbers)
    shared = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return [float(value) for value in shared.tolist()]
