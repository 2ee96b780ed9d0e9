"""A command of repro on two ranks of this machine, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "repro")


def on_two_ranks(*words: object) -> str:
    """Run `repro WORDS` on the CPU and return what both ranks print; fail with their errors if one fails."""
    done = subprocess.run(
        [sys.executable, *TORCHRUN, *map(str, words), "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
