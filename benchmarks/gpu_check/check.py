"""`scripts/gpu_check`: the checks that need a GPU, and a result file with its hardware.

Needs torch, torchvision, timm, numpy and Pillow; none of this repository's other dependencies. Exits with 0 where
all targets are met, 1 where one is missed or a part broke, 2 for a wrong command line, 3 where torch sees no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Case, case_from_json
from benchmarks.figures import RESULTS, Figure, write
from benchmarks.gpu_check import correctness, sparse, speed

CASES = Path(__file__).resolve().parents[1] / "cases.json"
NO_GPU = 3
PARTS = ("correctness", "compile", "released", "methods", "time", "sparse")
# Sparsity and side of the blocks of what is exported.
SPARSE = ((0.9, 1), (0.95, 1), (0.9, 16), (0.9, 32))
SPARSE_BATCH = 64
COMPILED = ("dense", "svite", "s2vite", "svite_plus")
EXACT = ("correctness", "compile")  # what a dry run can tell, too


def main(arguments: list[str] | None = None) -> int:
    """Run all parts or the named ones; write the result after each measurement."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description="check and measure on a CUDA device")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--batch", type=int, default=256, help="images of a step and of a timed forward pass")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out of the speed figures")
    parser.add_argument(
        "--cpu-dry-run", action="store_true", help="the same way on the CPU, tiny; its figures mean nothing"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.cpu_dry_run and not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA device here; --cpu-dry-run tries the script itself", file=sys.stderr)
        return NO_GPU
    device = torch.device("cpu" if options.cpu_dry_run else "cuda")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    read = json.loads(CASES.read_text(encoding="utf-8"))
    check = Check(device, options.batch, not options.eager, read)
    name, about = device_name(device)
    figures: list[Figure] = []
    for part in [part for part in PARTS if part in (options.parts or PARTS)]:
        started = time.monotonic()
        for what, measure in check.run(part):
            for figure in _safely(f"{part}, {what}", measure):
                if check.is_dry and part not in EXACT and not figure.name.endswith("broke"):
                    figure = replace(figure, target="–", is_met=None)
                print(f"{figure.name}: {figure.measured} (target: {figure.target}){_mark(figure)}", flush=True)
                figures.append(figure)
            # After each: what has been measured when time is up is on disk.
            about["seconds"] = {**about.get("seconds", {}), part: round(time.monotonic() - started, 1)}
            paths = write(f"gpu_{name}", figures, about, options.out)
            speed.tidy(device)
    print(*paths, sep="\n")
    return 0 if all(figure.is_met is not False for figure in figures) else 1


class Check:
    """The parts, on one device. On a CPU (a dry run) everything is tiny and nothing is compiled to machine code."""

    def __init__(self, device: torch.device, batch: int, compiled: bool, read: Mapping[str, Any]) -> None:
        self.device, self.is_dry = device, device.type == "cpu"
        self.batch = 4 if self.is_dry else batch
        # A dry run traces the blocks and leaves it at that: a C++ compiler would take longer than all the rest.
        self.compiler = "aot_eager" if self.is_dry else "inductor"
        self.speed_compiler = self.compiler if compiled else None
        self.updates = 1 if self.is_dry else speed.UPDATES
        self.size = 64 if self.is_dry else 8192
        self.rates: dict[str, float] = {}
        self.tiny = {case.name: case for case in map(case_from_json, read["tiny"])}
        self.methods: list[Case] = [case_from_json(value) for value in read["methods"]]
        self.backbones: list[Case] = [case_from_json(value) for value in read["backbones"]]
        self.smaller: list[dict[str, Any]] = read["smaller_models"]
        if self.is_dry:
            self.methods = [self.tiny[name] for name in ("dense", "svite", "ia_red2")]
            self.backbones = [self.tiny["dense"], self.tiny["svite"]]
            self.smaller = [_tiny(made) for made in self.smaller[:3]]

    def run(self, part: str) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
        """Run the measurements of a part by name; each can fail independently."""
        device, batch = self.device, self.batch
        if part == "correctness":
            for case in self.tiny.values():
                yield case.name, partial(correctness.correctness, case, device)
        elif part == "compile":
            for name in COMPILED:
                yield name, partial(correctness.compiling, self.tiny[name], device, self.compiler)
        elif part == "released":
            yield "matrix products", self._products
            for case in self.backbones:
                yield case.name, partial(self._released, case)
        elif part == "methods":
            dense, *others = self.methods
            for case in others:
                yield (
                    case.name,
                    partial(speed.against_dense, dense, case, device, batch, self.speed_compiler, self.updates),
                )
        elif part == "time":
            for made in self.smaller:
                yield made["row"], partial(speed.time_column, made, device, batch)
        else:
            largest = self.backbones[-1]
            # In a dry run as wide as blocks of 32 want it.
            geometry = {**largest.geometry, "embed_dim": 96} if self.is_dry else largest.geometry
            for sparsity, block in SPARSE:
                yield (
                    f"{sparsity:g}, blocks of {block}",
                    partial(
                        sparse.exported,
                        *(largest.name.split()[0], geometry, device, min(batch, SPARSE_BATCH), sparsity, block),
                    ),
                )

    def _products(self) -> Iterator[Figure]:
        for name in ("float32", "bfloat16"):
            self.rates[name] = speed.matmul_rate(self.device, getattr(torch, name), self.size)
            yield Figure(
                f"matrix products in {name}", "–", f"{self.rates[name] / 1e12:.3g} TFLOP/s", None, {"size": self.size}
            )

    def _released(self, case: Case) -> Iterator[Figure]:
        return speed.against_released(
            case, self.device, self.batch, self.speed_compiler, self.rates["bfloat16"], self.updates
        )


def _safely(what: str, measure: Callable[[], Iterable[Figure]]) -> Iterator[Figure]:
    """Yield the figures of one measurement; an exception becomes a figure that is not met, and the next one runs."""
    try:
        yield from measure()
    except Exception as error:  # a machine is lent for minutes: one method that breaks must not cost the others
        traceback.print_exc()
        yield Figure(f"{what}: broke", "–", f"{type(error).__name__}: {str(error)[:500]}", False, {})


def _tiny(made: Mapping[str, Any]) -> dict[str, Any]:
    """The same row on 32 pixels and two blocks."""
    geometry = {**made["geometry"], "image_size": 32, "depth": 2, "num_classes": 10}
    selector = made["selector"]
    if selector is not None:
        selector = {**selector, "arguments": {**selector["arguments"], "tokens": 5, "kept": 3}}
    return {**made, "geometry": geometry, "selector": selector}


def _mark(figure: Figure) -> str:
    return "" if figure.is_met is None else " met" if figure.is_met else " MISSED"


def device_name(device: torch.device) -> tuple[str, dict[str, Any]]:
    """Return a short name for a file, and the device's entry in a result file."""
    if device.type == "cpu":
        return "dry_run", {"device": "cpu (dry run: figures mean nothing)"}
    found = torch.cuda.get_device_properties(device)
    about = {
        "device": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    return re.sub(r"[^a-z0-9]+", "_", found.name.lower()).strip("_"), about
