"""Time saved per MACs saved on the CPU, by rows of DeiT-Small with physically smaller models, relative to dense.

Models run as in `repro bench time` (eager, float32), and as graphs of `repro export --format onnx` in onnxruntime,
which packs weights once. For a row that drops tokens, the limit is what it would save if the selection cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, time_per_macs
from benchmarks.first_tokens import without_selection
from repro.config import Config
from repro.config.compose import compose
from repro.config.costs import physical_macs_g
from repro.inference.build import physical_model
from repro.inference.graph import build_graph
from repro.inference.shrink import align
from repro.tables.loader import load_table

TABLE, DENSE = "table1", "deit_small/dense"
ROWS = (
    *("deit_small/s2vite-40", "deit_small/s2vite-60"),
    *("deit_small/svite_plus-10-50", "deit_small/svite_plus-30-50", "deit_small/s2vite_plus-10-40"),
)
IN_ONNX = ("deit_small/s2vite-40", "deit_small/svite_plus-30-50")
ROUNDS = {1: 25, 8: 9}  # by batch
_Pairs = list[tuple[float, float]]  # seconds of the dense model and of another one
TARGET = 0.9  # time saving over MACs saving


def inference() -> list[Figure]:
    """Return one figure per row and batch."""
    dense = _config(DENSE)
    reference = align(physical_model(dense))
    figures = []
    for name in ROWS:
        config = _config(name)
        model = align(physical_model(config))
        first_tokens = None if config.method.tokens is None else align(without_selection(config))
        for batch, rounds in ROUNDS.items():
            images = _images(dense, batch)
            reference_forward = _eager(reference, images)
            pairs = in_turn(reference_forward, _eager(model, images), rounds)
            limit = [] if first_tokens is None else in_turn(reference_forward, _eager(first_tokens, images), rounds)
            figures.append(_figure(name, f"batch {batch}", pairs, limit, dense, config, TARGET))
    return figures


def onnx() -> list[Figure]:
    """Return the same for exported graphs, without a target: the saving depends on onnxruntime."""
    dense = _config(DENSE)
    reference_forward = _graph(dense)
    figures = []
    for name in IN_ONNX:
        config = _config(name)
        run = _graph(config)
        for batch, rounds in ROUNDS.items():
            images = _images(dense, batch)
            pairs = in_turn(_forward(reference_forward, images), _forward(run, images), rounds)
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

    graph = build_graph(physical_model(config), config.model, "onnx", {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> object:
        logits: object = session.run(["logits"], {"images": images.numpy()})
        return logits

    return run
