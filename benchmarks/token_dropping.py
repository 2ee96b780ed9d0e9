"""Token dropping against the dense DeiT-Small: time saved for MACs saved, by the way images of different lengths run.

The interpreters are untrained and forced to the published budget (3.15 of 4.6 GMACs), images 20 % around it; what they
cost is in both numbers. On the CPU; on a GPU too where there is one. The limit beside it is of a model over as many
tokens which are not chosen, the same number of every image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, time_per_macs
from benchmarks.first_tokens import without_choosing
from repro.composition import compose
from repro.config import Config
from repro.measure.cost import physical_macs_g
from repro.measure.timed_rows import physical_model
from repro.tokens.execution import EXECUTIONS

ROUNDS = 7
# Of the MACs that are saved, the share by which time is to be saved.
TARGET = 0.85
BATCHES = {"cpu": (1, 8), "cuda": (256,)}
CHOSEN = "packed"  # conf/method/ia_red2.yaml


def token_dropping() -> list[Figure]:
    """One figure for each device, batch and execution; the execution that the house takes has a target."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [figure for device in devices for batch in BATCHES[device] for figure in _of_batch(device, batch)]


def _of_batch(device: str, batch: int) -> list[Figure]:
    dense = _config("method=dense")
    size = dense.model.image_size
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    reference = _forward(physical_model(dense).to(device), images)
    limit = in_turn(reference, _forward(without_choosing(_config("method=ia_red2")).to(device), images), ROUNDS)
    figures = []
    for execution in EXECUTIONS if batch > 1 else [CHOSEN]:  # one image needs no padding: they are all the same
        config = _config("method=ia_red2", f"method.tokens.execution={execution}")
        pairs = in_turn(reference, _forward(physical_model(config).to(device), images), ROUNDS)
        macs = (physical_macs_g(dense.model, dense.method), physical_macs_g(config.model, config.method))
        name = f"DeiT-Small, three interpreters at {macs[1]:.2f} GMACs, {device}, batch {batch}, {execution}"
        figures.append(time_per_macs(name, pairs, macs, TARGET if execution == CHOSEN else None, limit=limit))
    return figures


def _config(*overrides: str) -> Config:
    return compose(["backbone=deit_small", "scale=paper", "data.root=not_read_by_a_benchmark", *overrides])


def _forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.inference_mode():
            model(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return forward
