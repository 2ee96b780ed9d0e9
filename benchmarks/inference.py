"""Time saved for MACs saved by rows whose models are physically smaller: DeiT-Small, dense and row in turn, on the CPU.

As `repro bench time` runs them (eager, float32), and as `repro export --format onnx` writes them, by onnxruntime, which
packs weights once. Beside a row that drops tokens stands what it would save if choosing them cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, time_per_macs
from benchmarks.first_tokens import without_choosing
from repro.composition import compose
from repro.config import Config
from repro.measure.cost import physical_macs_g
from repro.measure.timed_rows import physical_model
from repro.models.graph import graph_of
from repro.models.shrink import align
from repro.paper_tables import load_table

TABLE, DENSE = "table1", "deit_small/dense"
ROWS = (
    *("deit_small/s2vite-40", "deit_small/s2vite-60"),
    *("deit_small/svite_plus-10-50", "deit_small/svite_plus-30-50", "deit_small/s2vite_plus-10-40"),
)
IN_ONNX = ("deit_small/s2vite-40", "deit_small/svite_plus-30-50")
ROUNDS = {1: 25, 8: 9}  # by batch
_Pairs = list[tuple[float, float]]  # seconds of the whole model and of another one
TARGET = 0.9  # of the share of MACs that is saved, by which time is to be saved


def inference() -> list[Figure]:
    """One figure for each row and batch."""
    dense = _config(DENSE)
    reference = align(physical_model(dense))
    figures = []
    for name in ROWS:
        config = _config(name)
        model = align(physical_model(config))
        unchosen = None if config.method.tokens is None else align(without_choosing(config))
        for batch, rounds in ROUNDS.items():
            images = _images(dense, batch)
            whole = _eager(reference, images)
            pairs = in_turn(whole, _eager(model, images), rounds)
            limit = [] if unchosen is None else in_turn(whole, _eager(unchosen, images), rounds)
            figures.append(_figure(name, f"batch {batch}", pairs, limit, dense, config, TARGET))
    return figures


def onnx() -> list[Figure]:
    """The same of exported graphs, told without a target: what it saves is onnxruntime's doing."""
    dense = _config(DENSE)
    whole = _graph(dense)
    figures = []
    for name in IN_ONNX:
        config = _config(name)
        run = _graph(config)
        for batch, rounds in ROUNDS.items():
            images = _images(dense, batch)
            pairs = in_turn(_forward(whole, images), _forward(run, images), rounds)
            figures.append(_figure(name, f"ONNX, batch {batch}", pairs, [], dense, config, None))
    return figures


def _figure(
    name: str, how: str, pairs: _Pairs, limit: _Pairs, dense: Config, config: Config, target: float | None
) -> Figure:
    macs = (physical_macs_g(dense.model, dense.method), physical_macs_g(config.model, config.method))
    details = {} if target is not None else {"onnxruntime": version("onnxruntime")}
    return time_per_macs(f"{name}, {how}", pairs, macs, target, details, limit)


def _config(name: str) -> Config:
    (row,) = load_table(TABLE).select([name])
    return compose([*row.overrides_at("paper"), "data.root=not_read_by_a_benchmark"])


def _images(config: Config, batch: int) -> Tensor:
    return torch.randn(batch, *config.model.input_shape, generator=torch.Generator().manual_seed(0))


def _eager(model: nn.Module, images: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.inference_mode():
            model(images)

    return forward


def _forward(run: Callable[[Tensor], object], images: Tensor) -> Callable[[], object]:
    return lambda: run(images)


def _graph(config: Config) -> Callable[[Tensor], object]:
    import onnxruntime

    graph = graph_of(physical_model(config), config.model, "onnx", {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> object:
        found: object = session.run(["logits"], {"images": images.numpy()})
        return found

    return run
