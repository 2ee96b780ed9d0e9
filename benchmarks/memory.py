"""Peak memory of training DeiT-Small with every method relative to dense, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.cases import Case, Training
from benchmarks.composed import METHODS, published
from benchmarks.figures import Figure
from benchmarks.masks import TIDY_MALLOC

BATCH = 4
CHECKPOINTED = "dense checkpointed"
# Ordinary updates, and the rare ones that change masks (some methods change them in every update).
OFTEN, RARE = "updates", "updates_that_move_masks"
# Measured in addition to the first two updates and those that change masks: the middle of each of three stages, when
# the blocks after an interpreter are trained.
SHARES = (1 / 6, 1 / 2, 5 / 6)


def memory() -> Iterator[Figure]:
    """Yield a figure per method, and one for dense with activation checkpointing."""
    dense = _peaks("dense")
    for name in (*METHODS, CHECKPOINTED):
        peaks = dense if name == "dense" else _peaks(name)
        often, ever = (max(some.values()) / max(dense.values()) for some in (peaks | {RARE: 0}, peaks))
        yield Figure(
            f"deit_small, batch {BATCH}, {name}: peak memory",
            "–",
            f"{max(peaks.values()) / 2**20:.0f} MiB, {ever:.3f} of dense"
            + (f" (in mask updates; {often:.3f} in other updates)" if ever > 1.01 * often else ""),
            None,
            {"bytes": peaks},
        )


def measured_updates(case: Case) -> dict[int, str]:
    """Return the updates to measure, counted from 1, with their kinds: training peaks in one of them."""
    often = {1, 2, *(round(share * case.length.updates) for share in SHARES)}
    rare = set()
    for _, given in case.parts:
        if (schedule := given.get("schedule")) is not None:
            often.add(schedule.last + 1)
            rare |= {schedule.interval, schedule.last} - ({1} if schedule.interval == 1 else set())
    return dict(sorted({**dict.fromkeys(often, OFTEN), **dict.fromkeys(rare, RARE)}.items()))


def _peaks(name: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory", name, str(torch.get_num_threads())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **TIDY_MALLOC})
    peaks: dict[str, int] = json.loads(done.stdout)
    return peaks


def print_peaks(name: str) -> None:
    """Run in a child process: train, and print the peak resident sizes in bytes above torch's own."""
    method, _, how = name.partition(" ")
    _training("dense", 2, checkpointing=False).update()  # loads the code of torch's kernels
    before = _resident("VmRSS")
    _reset_peak()
    training = _training(method, BATCH, checkpointing=bool(how))
    peaks = {OFTEN: 0, RARE: _resident("VmHWM") - before}  # masks may be selected before the first update
    for update, kind in measured_updates(training.case).items():
        training.state.update = update - 1
        _reset_peak()
        training.update()
        peaks[kind] = max(peaks[kind], _resident("VmHWM") - before)
    print(json.dumps(peaks))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _training(method: str, batch: int, checkpointing: bool) -> Training:
    return Training(
        published("deit_small", method), torch.device("cpu"), batch=batch, amp="none", checkpointing=checkpointing
    )


def _resident(line: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (size,) = [entry.split()[1] for entry in lines if entry.startswith(f"{line}:")]
    return int(size) * 1024


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print_peaks(sys.argv[1])
