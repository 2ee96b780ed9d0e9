"""`python -m benchmarks`: measure, print, and write benchmarks/results/. Exits with 1 where a target is missed."""

from __future__ import annotations

import sys

import torch

from benchmarks.figures import write
from benchmarks.launching import launching
from benchmarks.masks import applying, memory, moving
from benchmarks.mirror import mirror
from benchmarks.page import page
from benchmarks.reporting import reporting
from benchmarks.soft_topk import extra_memory, soft_masks
from benchmarks.sparse_inference import sparse_inference
from benchmarks.token_dropping import token_dropping

ROOMS = {
    "masks": (moving, applying, memory),
    "mirror": (mirror,),
    "reporting": (reporting, page),
    "launching": (launching,),
    "soft_topk": (soft_masks, extra_memory),
    "sparse_inference": (sparse_inference,),
    "token_dropping": (token_dropping,),
}


def main() -> int:
    """Run every benchmark. `python -m benchmarks 1` takes one thread: for a machine that has others at work."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    every = []
    for room, measures in ROOMS.items():
        figures = []
        for measure in measures:
            found = measure()
            for figure in found if isinstance(found, list) else [found]:
                print(f"{figure.name}: {figure.measured} (target: {figure.target})", flush=True)
                figures.append(figure)
        for path in write(room, figures):
            print(path)
        every += figures
    return 0 if all(figure.is_met is not False for figure in every) else 1


if __name__ == "__main__":
    sys.exit(main())
