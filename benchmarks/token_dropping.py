"""Token dropping against the dense model: time saved for MACs saved, by the way images of different lengths run.

DeiT-Small with three interpreters, and three blocks of TimeSformer's twelve with one. They are untrained and
forced to the keep rates of the plan (for DeiT-Small the published budget, 3.15 of 4.6 GMACs), images 20 % around them;
what they cost is in both numbers. On the CPU; on a GPU too where there is one. The limit beside DeiT-Small is
of a model over as many tokens which are not chosen, the same number of every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, time_per_macs
from benchmarks.first_tokens import without_choosing
from repro.composition import compose
from repro.config import Config
from repro.measure.cost import physical_macs_g
from repro.measure.timed_rows import physical_model
from repro.paper_tables import load_table
from repro.tokens.execution import EXECUTIONS

TABLE = "table3"
ROUNDS = 7
# Of the MACs that are saved, the share by which time is to be saved.
TARGET = 0.85
CHOSEN = "packed"  # conf/method/ia_red2.yaml


@dataclass(frozen=True)
class Subject:
    """A row that drops tokens and the dense one that it is held against.

    Attributes:
        words: what it is called.
        executions: what is compared where images have different lengths; the one that the house takes has a target.
        batches: by device; a device that is not named is left out.
        has_limit: whether its blocks can be run over fewer tokens that are not chosen.
        overrides: beside the rows' own, at scale paper.
    """

    dense: str
    dropping: str
    words: str
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
    # All twelve blocks of a clip would take a CPU a minute and a half; blocks are alike. What is left of a clip runs in
    # one way only.
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
    """One figure for each row, device, batch and execution."""
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
        first = without_choosing(_config(subject, subject.dropping)).to(device)
        limit = in_turn(reference, _forward(first, images), ROUNDS)
    for execution in subject.executions if batch > 1 else [CHOSEN]:  # one image needs no padding: they are all the same
        config = _config(subject, subject.dropping, f"method.tokens.execution={execution}")
        pairs = in_turn(reference, _forward(physical_model(config).to(device), images), ROUNDS)
        macs = (physical_macs_g(dense.model, dense.method), physical_macs_g(config.model, config.method))
        how = f", {execution}" if len(subject.executions) > 1 else ""
        name = f"{subject.words} at {macs[1]:.2f} GMACs, {device}, batch {batch}{how}"
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
