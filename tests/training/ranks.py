"""Runs that two ranks share, each a forked process on this machine."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from repro.launch.local_run import preloads
from repro.runs.record import Record
from repro.training.attempt import execute

TIMEOUT_S = 60  # an unanswered collective blocks for 1800


@dataclass(frozen=True)
class Machine:
    """What a rank finds on its machine: its working directory, environment variables, and whether there is a GPU."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    has_gpu: bool = False


def two_ranks(record: Record, machines: Sequence[Machine], output: Path) -> list[tuple[int, str]]:
    """Execute an attempt with two ranks and return the exit code and the output of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloads(record.config()))
    outputs = [output / f"rank{rank}" for rank in range(2)]
    processes = [
        context.Process(target=_rank, args=(record.path, machine, {**world, "RANK": str(rank)}, outputs[rank]))
        for rank, machine in enumerate(machines)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(TIMEOUT_S)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert None not in codes, "a rank waits for one that is gone"
    return [(code or 0, path.read_text()) for code, path in zip(codes, outputs, strict=True)]


def _rank(record: Path, machine: Machine, world: Mapping[str, str], output: Path) -> None:
    os.environ.update({**machine.environment, **world})
    os.chdir(machine.folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    if machine.has_gpu:
        torch.cuda.is_available = lambda: True
        torch.cuda.device_count = lambda: 1
    sys.exit(execute(record, takeover_timeout_s=0.5))
