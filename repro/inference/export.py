"""Exports a finished model in its smallest and fastest form, with everything that is needed to build it again.

DIR/model.safetensors    weights
DIR/model.json           geometry, heads and neurons of each block, token selection, kernels, origin
DIR/model.onnx, .pt2     the same model as a graph, on request: see `repro.inference.graph`
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from repro.config import Config
from repro.counting.geometry import Geometry, parse_geometry
from repro.errors import UserError, is_out_of_memory
from repro.files import read_object, replacing, write_json
from repro.inference.build import attach_selector, masked_model, selector_spec
from repro.inference.graph import FORMATS, Graph, build_graph
from repro.inference.kernel_selection import MASKED, KernelSearch, select_form
from repro.inference.kernels import apply_kernels
from repro.inference.logits import logits_of
from repro.inference.shrink import Sizes, align, block_sizes, resize, shrink
from repro.models.backbone import build_model

FORMAT = 4
_DAMAGES = (ArithmeticError, AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError)
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
TOLERANCE = 1e-5  # maximum logit difference, relative to the masked model's largest logit or to 1 if that is larger
CHECKED_IMAGES = 8


def export(
    config: Config,
    weights: dict[str, Tensor],
    folder: Path,
    origin: dict[str, Any],
    search: KernelSearch | None = None,
    formats: Collection[str] = (),
) -> dict[str, Any]:
    """Write a finished model without the heads and neurons that have no effect; return its description.

    Nothing is written if an error is raised.

    Args:
        config: Config of the run.
        weights: State dict of the run, zero where the model is sparse.
        folder: Folder to write to.
        origin: Where the model comes from (row, signature, classes), as JSON values.
        search: How to measure the fastest kernel of each sparse layer, and whether the shrunk model is faster than the
            masked model; if it is slower, the masked model is written. None writes the shrunk model with dense layers.
        formats: Graphs to write as well, from `repro.inference.graph.FORMATS`; their layers are dense.

    Raises:
        UserError: If a graph cannot be built.
        ArithmeticError: If the logits differ from those of the masked model.
    """
    model = masked_model(config, weights)
    dense_parameters = _parameters(model)
    model, difference = _shrunk(model, config.model)
    kernels = None
    if search is not None:
        kernels = _fastest_form(masked_model(config, weights), model, config.model, search)
        if kernels["form"] == MASKED:
            model = masked_model(config, weights)
    sizes = block_sizes(model)
    normalisation = {"mean": list(config.data.mean), "std": list(config.data.std)}
    metadata = {
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in origin.items()},
        "normalisation": json.dumps(normalisation),
        "image_size": str(config.model.image_size),
        "dataset": config.data.name,
    }
    graphs = {name: build_graph(model, config.model, name, metadata) for name in formats}
    description: dict[str, Any] = {
        "format": FORMAT,
        **origin,
        "geometry": config.model.model_dump(mode="json"),
        "heads": list(sizes.heads),
        "neurons": list(sizes.neurons),
        "tokens": selector_spec(config),
        "parameters": {
            "dense": dense_parameters,
            "stored": _parameters(model),
            "nonzero": sum(int(weight.count_nonzero()) for weight in model.parameters()),
        },
        "largest_logit_difference": difference,
        "kernels": kernels,
        "graphs": {name: graph.about for name, graph in graphs.items()},
        "normalisation": normalisation,
        # The data set and recipe of the evaluation, without the data folder, which only this machine has.
        "evaluation": {
            "data": {**config.data.model_dump(mode="json"), "root": None},
            "recipe": config.recipe.model_dump(mode="json"),
            "seed": config.seed,
        },
    }
    _write(folder, model, graphs, description)
    return description


def _shrunk(masked: nn.Module, geometry: Geometry) -> tuple[nn.Module, float]:
    """Return a shrunk copy, and the largest difference between its logits and the masked model's on noise."""
    model = copy.deepcopy(masked)
    images = _noise(geometry, CHECKED_IMAGES)
    expected = logits_of(masked, images)
    shrink(model)
    difference = float((logits_of(model, images) - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ArithmeticError(f"logits of the smaller model differ from the masked model's by {difference:.2g}")
    return model, difference


def _fastest_form(masked: nn.Module, small: nn.Module, geometry: Geometry, search: KernelSearch) -> dict[str, Any]:
    device = torch.device(search.device)
    aligned = align(copy.deepcopy(small)).to(device)  # the form in which `load_exported` builds it
    images = _noise(geometry, search.batch).to(device)
    return select_form(masked.to(device), aligned, images, search)


def _write(folder: Path, model: nn.Module, graphs: Mapping[str, Graph], description: dict[str, Any]) -> None:
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    for name, form in FORMATS.items():
        if name not in graphs:
            (folder / form.file).unlink(missing_ok=True)  # a graph of an earlier export has other weights
            continue
        with replacing(folder / form.file) as temporary:
            temporary.write_bytes(graphs[name].content)
    write_json(folder / DESCRIPTION, description)


def _parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _noise(geometry: Geometry, batch: int) -> Tensor:
    return torch.randn(batch, *geometry.input_shape, generator=torch.Generator().manual_seed(0))


def load_exported(folder: Path, kernels: Literal["measured", "dense"] = "measured") -> nn.Module:
    """Load an exported model in evaluation mode, on the CPU, with the kernels that were measured to be fastest.

    `kernels="dense"` keeps all layers dense. Raises `UserError` if there is no export, if it has another format, or if
    a kernel is not available on this machine.
    """
    description = read_description(folder)
    with reading_export(folder):
        model = build_model(parse_geometry(description["geometry"]), 0.0, 0)
        attach_selector(model, description["tokens"])
        resize(model, Sizes(tuple(description["heads"]), tuple(description["neurons"])))
        model.load_state_dict(load_file(folder / WEIGHTS))
        align(model)
        if kernels == "measured" and description["kernels"] is not None:
            apply_kernels(model, description["kernels"]["layers"])
    return model.eval()


@contextmanager
def reading_export(folder: Path) -> Iterator[None]:
    """Raise a one-line `UserError` for what the wrong values, keys and shapes of damaged files raise."""
    try:
        yield
    except _DAMAGES as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: damaged ({type(error).__name__}: {reason}); export it again") from None


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of an exported model. Raises `UserError` if there is none or it has another format."""
    description = read_object(folder / DESCRIPTION, "export it again")
    if description is None:
        raise UserError(f"{folder}: no exported model (no {DESCRIPTION}); write one with repro export")
    if description.get("format") != FORMAT:
        raise UserError(f"{folder}: format {description.get('format')!r}, this code reads {FORMAT}; export it again")
    return description
