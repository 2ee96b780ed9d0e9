"""Measures the training throughput of this machine with a few real updates on random images."""

from __future__ import annotations

import subprocess
import time

import torch
from torch import nn

from repro.config import Config
from repro.distributed import join_world
from repro.errors import count_of
from repro.models.backbone import build_model
from repro.models.precision import autocast
from repro.timing.rate import Throughput

WARM_UP_UPDATES = 2


def probe(config: Config, budget_s: float) -> Throughput:
    """Train on micro-batches of noise for about `budget_s` seconds on one device, and return the throughput.

    It includes neither data loading nor the work of a method.
    """
    device = join_world(config.run.device).device
    threads = torch.get_num_threads()
    if config.scale.cpu_threads:
        torch.set_num_threads(config.scale.cpu_threads)
    try:
        rate = _images_per_s(config, device, budget_s)
    finally:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    cores = (
        f", {count_of(config.scale.cpu_threads, 'thread')}" if device.type == "cpu" and config.scale.cpu_threads else ""
    )
    watts = _power_limit_w(device.index or 0) if device.type == "cuda" else None
    return Throughput(rate, name, f"{rate:.0f} images/s in training, measured here ({name}{cores})", watts)


def _images_per_s(config: Config, device: torch.device, budget_s: float) -> float:
    recipe, shape = config.recipe, config.model
    batch = min(recipe.micro_batch, recipe.global_batch)
    model = build_model(shape, recipe.drop_path, seed=0).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(batch, *shape.input_shape, device=device)
    labels = torch.randint(shape.num_classes, (batch,), device=device)
    started, updates = time.monotonic(), 0
    measured_from = started
    while updates <= WARM_UP_UPDATES or time.monotonic() - started < budget_s:
        if updates == WARM_UP_UPDATES:
            _synchronize(device)
            measured_from = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        with autocast(recipe.amp, device):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        updates += 1
    _synchronize(device)
    return batch * (updates - WARM_UP_UPDATES) / (time.monotonic() - measured_from)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _power_limit_w(index: int) -> float | None:
    """Return the power limit of a GPU in watts, which training nearly reaches; None if nvidia-smi reports none."""
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return float(answer.stdout.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
