"""`python -m benchmarks [room ...]`: measure, print, and write benchmarks/results/.

Exits with 1 if a target is missed. Use `--threads 1` on a machine that runs other processes.
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks.data import data
from benchmarks.decoders import decoders
from benchmarks.figures import Figure, write
from benchmarks.growth import images, parameters, ranks
from benchmarks.inference import inference, onnx
from benchmarks.launching import launching
from benchmarks.local_recipe import learning_rates
from benchmarks.masks import applying, moving
from benchmarks.masks import memory as memory_of_masks
from benchmarks.memory import memory
from benchmarks.mirror import mirror
from benchmarks.page import page
from benchmarks.reporting import reporting
from benchmarks.small_step import small_steps
from benchmarks.soft_topk import extra_memory, soft_masks
from benchmarks.sparse_inference import neurons, sparse_inference
from benchmarks.token_dropping import token_dropping
from benchmarks.training import sparse, steps, whole_updates

ROOMS = {
    "data": (data,),
    "decoders": (decoders,),
    "inference": (inference, onnx),
    "local_recipe": (learning_rates,),
    "masks": (moving, applying, memory_of_masks),
    "memory": (memory,),
    "mirror": (mirror,),
    "reporting": (reporting, page),
    "launching": (launching,),
    "growth": (images, parameters, ranks),
    "small_step": (small_steps,),
    "soft_topk": (soft_masks, extra_memory),
    "sparse_inference": (sparse_inference, neurons),
    "token_dropping": (token_dropping,),
    "training": (steps,),
    "sparse_training": (sparse, whole_updates),
}


def main() -> int:
    """Run all benchmarks, or those of the named rooms."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="measure what the docs claim")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)} (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    every = []
    for room in options.rooms or ROOMS:
        torch.set_num_threads(options.threads)
        figures = []
        for measure in ROOMS[room]:
            found = measure()
            for figure in [found] if isinstance(found, Figure) else found:
                print(f"{figure.name}: {figure.measured} (target: {figure.target})", flush=True)
                figures.append(figure)
        for path in write(room, figures):
            print(path)
        every += figures
    return 0 if all(figure.is_met is not False for figure in every) else 1


if __name__ == "__main__":
    sys.exit(main())
