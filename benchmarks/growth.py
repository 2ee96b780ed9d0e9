"""How time and memory grow with images, parameters and ranks. (For growth with runs, see `launching`, `reporting`.)"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.figures import Figure
from benchmarks.masks import svite
from repro.config.compose import compose
from repro.data.fingerprint import fingerprint
from repro.data.folder_files import FolderFiles
from repro.data.image_folders import ImageFiles
from repro.data.layouts import Split
from repro.data.listing import list_images
from repro.data.loader import epoch_order
from repro.distributed import join_world, leave_world
from repro.models.backbone import build_model
from repro.training import checkpoint

IMAGES = (2_000, 20_000, 200_000)
IMAGENET_IMAGES = 1_281_167
IMAGES_PER_CLASS = 1_000
BACKBONES = ("deit_tiny", "deit_small", "deit_base")
RANKS = (1, 2, 4)
ROUNDS = 5
# The cost per unit may grow by this factor from the first to the last of a series: more is not linear.
MOST_GROWTH = 1.5


def images() -> list[Figure]:
    """Measure listing a folder of images, keeping the list in memory, and drawing an epoch's order, per image."""
    found = {number: _child("listing", str(number)) for number in IMAGES}
    per_image = [1e6 * found[number]["listing_s"] / number for number in IMAGES]
    held = [1e6 * found[number]["held_mb"] / number for number in IMAGES]
    orders = {number: _order_s(number) for number in (*IMAGES, IMAGENET_IMAGES)}
    per_place = [1e6 * seconds / number for number, seconds in orders.items()]
    few, *_, many = IMAGES
    return [
        _linear(
            f"listing images and taking their fingerprint, {few:,} to {many:,}, microseconds an image",
            per_image,
            _series(per_image, 1),
            {"seconds": {number: one["listing_s"] for number, one in found.items()}},
        ),
        Figure(
            "growth: what a process holds of the list, bytes an image",
            "–",
            _series(held, 0),
            None,
            {"megabytes": {number: one["held_mb"] for number, one in found.items()}},
        ),
        _linear(
            f"the order of an epoch, {few:,} to {IMAGENET_IMAGES:,} images, microseconds an image",
            per_place,
            f"{_series(per_place, 2)}; ImageNet's: {orders[IMAGENET_IMAGES]:.2f} s",
            {"seconds": orders},
        ),
    ]


def parameters() -> list[Figure]:
    """Measure a mask update and a checkpoint of DeiT-Tiny, Small and Base, per parameter."""
    updates, saves, sizes, counts = [], [], [], []
    for name in BACKBONES:
        model = build_model(compose([f"backbone={name}"]).backbone.paper, 0.0, 0)
        part = svite(model)
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        optimizer.step()
        count = sum(weight.numel() for weight in model.parameters())
        counts.append(count)
        updates.append(1e9 * _median_s(lambda part=part: part.after_step(1)) / count)  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "masks": part.state_dict()}
            saves.append(1e9 * _median_s(lambda p=place, s=state: checkpoint.save(p, 1, s)) / count)  # type: ignore[misc]
            sizes.append(sum(path.stat().st_size for path in place.iterdir()) / count)
    millions = ", ".join(f"{count / 1e6:.1f} M" for count in counts)
    return [
        _linear(
            f"mask update of all layers ({millions} parameters), nanoseconds a parameter",
            updates,
            _series(updates, 1),
            {"parameters": counts},
        ),
        _linear(
            f"writing a checkpoint, with its checksum and fsync ({millions}), nanoseconds a parameter",
            saves,
            f"{_series(saves, 1)}; {_series(sizes, 1)} bytes a parameter",
            {"parameters": counts},
        ),
    ]


def ranks() -> list[Figure]:
    """Time the collectives of a step: the stop flag and DeiT-Small's gradients (gloo, one host)."""
    found = {size: _of_ranks(size) for size in RANKS}
    stops = [1e6 * found[size]["any_of_s"] for size in RANKS]
    gradients = [1e3 * found[size]["gradients_s"] for size in RANKS]
    names = ", ".join(map(str, RANKS))
    return [
        Figure(
            f"growth: asking {names} ranks whether one has to stop, microseconds a step",
            "–",
            _series(stops, 0),
            None,
            {"cores": os.cpu_count(), "details": found},
        ),
        Figure(
            f"growth: DeiT-Small's gradients averaged over {names} ranks by gloo, ms",
            "–",
            _series(gradients, 0),
            None,
            {"cores": os.cpu_count()},
        ),
    ]


def _linear(what: str, costs: Sequence[float], measured: str, details: dict[str, Any]) -> Figure:
    """Return a figure for a cost per unit that must stay nearly constant along a series."""
    is_linear = costs[-1] <= MOST_GROWTH * costs[0]
    return Figure(f"growth: {what}", f"linear (grows at most {MOST_GROWTH} times)", measured, is_linear, details)


def _series(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _median_s(action: Callable[[], object]) -> float:
    action()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _order_s(number: int) -> float:
    started = time.perf_counter()
    epoch_order(number, seed=0, epoch=0, repeats=1)
    return time.perf_counter() - started


def _child(*words: str, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _of_ranks(size: int) -> dict[str, float]:
    """Run each rank as a process; return the output of rank 0."""
    with tempfile.TemporaryDirectory() as folder:
        here = [sys.executable, "-m", "benchmarks.growth", "rank", str(Path(folder) / "meeting"), str(size)]
        processes = [
            subprocess.Popen(
                [*here, str(rank)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(size)},
            )
            for rank in range(size)
        ]
        said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a rank has failed")
    return dict(json.loads(said[0].splitlines()[-1]))


def listing(number: int) -> dict[str, float]:
    """Run in a child process: list empty files in class folders as training does."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place in range(number):
            if place % IMAGES_PER_CLASS == 0:
                (parent := root / f"n{place // IMAGES_PER_CLASS:08d}").mkdir()
            (parent / f"n{place // IMAGES_PER_CLASS:08d}_{place:08d}.JPEG").touch()
        started = time.perf_counter()
        images = list_images(Split(root))
        classes = images.class_names()
        fingerprint(classes, images)
        taken = time.perf_counter() - started
        files = ImageFiles.of(images, classes, lambda image: torch.zeros(0), is_random=False)
        assert isinstance(files.files, FolderFiles)
        megabytes = (files.files.names.nbytes + files.labels.nbytes + files.positions.nbytes) / 1e6
    return {"listing_s": round(taken, 4), "held_mb": megabytes, "peak_mb": _peak_mb()}


def rank(meeting: str, size: int, number: int) -> dict[str, float]:
    """Run in a child process as one of the ranks."""
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=size)
    world = join_world("cpu")
    try:
        gradient = torch.zeros(22_050_664)
        found = {
            "any_of_s": _median_s(lambda: world.any_rank(False, False)),
            "gradients_s": _median_s(lambda: world.total(gradient)),
        }
    finally:
        leave_world()
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    print(json.dumps(listing(int(words[0])) if what == "listing" else rank(words[0], int(words[1]), int(words[2]))))
