"""Token dropping relative to the dense model: time saved per MACs saved, by execution of images of unequal lengths.

Measures DeiT-Small with three interpreters, and three of TimeSformer's twelve blocks with one, on the CPU, and on a GPU
if there is one. Interpreters are untrained and forced to the planned keep rates (for DeiT-Small, the published budget,
3.15 of 4.6 GMACs), with images within 20 % of them; their cost is part of both numbers. The limit for DeiT-Small is a
model over the same number of tokens for every image, without selection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, time_per_macs
from benchmarks.first_tokens import without_selection
from repro.config import Config
from repro.config.compose import compose
from repro.config.costs import physical_macs_g
from repro.inference.build import physical_model
from repro.models.token_execution import EXECUTIONS
from repro.tables.loader import load_table

TABLE = "table3"
ROUNDS = 7
TARGET = 0.85  # time saving over MACs saving
CHOSEN = "packed"  # conf/method/ia_red2.yaml


@dataclass(frozen=True)
class Subject:
    """A row that drops tokens and the dense row that it is compared with.

    Attributes:
        label: its name in the results.
        executions: to compare for images of different lengths; `CHOSEN` has a target.
        batches: by device; other devices are not measured.
        has_limit: whether its blocks can run over fewer tokens without selection.
        overrides: in addition to the rows' own, at scale paper.
    """

    dense: str
    dropping: str
    label: str
    executions: Sequence[str]
    batches: Mapping[str, Sequence[int]]
    has_limit: bool
    overrides: Sequence[str] = ()


SUBJECTS = (
    Subject(
        "deit_small/dense",
        "deit_small/ia_red2",
        "DeiT-Small, three interpreters",
        tuple(EXECUTIONS),
        {"cpu": (1, 8), "cuda": (256,)},
        True,
    ),
    # All twelve blocks would take a CPU a minute and a half per clip, and all blocks are alike. Divided attention has
    # only one execution.
    Subject(
        "timesformer/dense",
        "timesformer/ia_red2",
        "TimeSformer with 3 of its 12 blocks, one interpreter",
        (CHOSEN,),
        {"cpu": (1, 2), "cuda": (8,)},
        False,
        ("model.depth=3",),
    ),
)


def token_dropping() -> list[Figure]:
    """Return one figure per row, device, batch and execution."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        figure
        for subject in SUBJECTS
        for device in devices
        for batch in subject.batches[device]
        for figure in _of_batch(subject, device, batch)
    ]


def _of_batch(subject: Subject, device: str, batch: int) -> Iterator[Figure]:
    dense = _config(subject, subject.dense)
    shape = (batch, *dense.model.input_shape)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    reference = _forward(physical_model(dense).to(device), images)
    limit: Sequence[tuple[float, float]] = ()
    if subject.has_limit:
        first = without_selection(_config(subject, subject.dropping)).to(device)
        limit = in_turn(reference, _forward(first, images), ROUNDS)
    for execution in subject.executions if batch > 1 else [CHOSEN]:  # executions differ in padding only
        config = _config(subject, subject.dropping, f"method.tokens.execution={execution}")
        pairs = in_turn(reference, _forward(physical_model(config).to(device), images), ROUNDS)
        macs = (physical_macs_g(dense.model, dense.method), physical_macs_g(config.model, config.method))
        how = f", {execution}" if len(subject.executions) > 1 else ""
        name = f"{subject.label} at {macs[1]:.2f} GMACs, {device}, batch {batch}{how}"
        yield time_per_macs(name, pairs, macs, TARGET if execution == CHOSEN else None, limit=limit)


def _config(subject: Subject, name: str, *overrides: str) -> Config:
    (row,) = load_table(TABLE).select([name])
    return compose([*row.overrides_at("paper"), *subject.overrides, "data.root=not_read_by_a_benchmark", *overrides])


def _forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.inference_mode():
            model(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return forward
