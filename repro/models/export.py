"""Finished models on disk: as small as they can be, with all that is needed to build them again.

DIR/model.safetensors    the weights
DIR/model.json           geometry, heads and neurons of each block, token selection, kernels, where it comes from
DIR/model.onnx, .pt2     the same as a graph, where that is asked for: `repro.models.graph`
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from repro.config import Config
from repro.errors import UserError
from repro.geometry import Geometry, parse_geometry
from repro.measure.cost import token_arguments
from repro.models.backbone import build_model
from repro.models.choosing import MASKED, logits_of, measured
from repro.models.graph import FORMS, graph_of
from repro.models.kernels import apply_kernels
from repro.models.shrink import Sizes, align, cut_to, shrink, sizes
from repro.parts import MethodPart
from repro.runs.files import replacing, write_json

FORMAT = 4
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
# How far the exported model's logits may be from the masked one's, as a share of the largest of them (or of 1).
TOLERANCE = 1e-5
CHECKED_IMAGES = 8


def masked_model(config: Config, weights: dict[str, torch.Tensor] | None) -> nn.Module:
    """The model of a finished run as it was trained: full matrices, zeros where it is sparse; in evaluation mode.

    Without weights, its own are those that it is built with.
    """
    model = build_model(config.model, 0.0, config.seed)
    attach_selector(model, selector_of(config))
    if weights is not None:
        model.load_state_dict(weights)
    return model.eval()


def selector_of(config: Config) -> dict[str, Any] | None:
    """How to make the run's token selection again: its class and arguments; None without one."""
    part = config.method.tokens
    if part is None:
        return None
    return {"target": part.target, "arguments": token_arguments(config, updates=1, seed=0)}


def export(
    config: Config,
    weights: dict[str, torch.Tensor],
    folder: Path,
    origin: dict[str, Any],
    batch: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
    device: str = "cpu",
    forms: Collection[str] = (),
) -> dict[str, Any]:
    """Write the finished model, with heads and neurons that say nothing removed; returns its description.

    Args:
        config: the run's.
        weights: its model's state dict, zero where it is sparse.
        folder: made where it is not there; an earlier export in it is replaced.
        origin: what to say about where it comes from (row, signature, record), as JSON values.
        batch: with how many images to measure which kernel each sparse layer is fastest with here, and whether the
            model is not slower than the masked one (else that is written); None: not at all.
        tell: is told how the measuring goes.
        device: where to measure.
        forms: graphs to write beside it, of `repro.models.graph.FORMS`; they have dense layers only.

    Raises:
        UserError: for a graph that cannot be had.
        ArithmeticError: where its logits on images of noise are not those of the masked model: then nothing is written.
    """
    masked = masked_model(config, weights)
    model = copy.deepcopy(masked)
    images = _noise(config.model, CHECKED_IMAGES)
    masked_logits = logits_of(masked, images)
    before = sum(weight.numel() for weight in model.parameters())
    left = shrink(model)
    difference = float((logits_of(model, images) - masked_logits).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(masked_logits.abs().max())):
        raise ArithmeticError(f"logits of the smaller model differ from the masked model's by {difference:.2g}")
    kernels = None
    if batch is not None:
        place = torch.device(device)
        # As it will be loaded.
        aligned = align(copy.deepcopy(model)).to(place)
        kernels = measured(masked.to(place), aligned, _noise(config.model, batch).to(place), tell)
        masked = masked.cpu()
        if kernels["form"] == MASKED:
            model, left = masked, sizes(masked)
    graphs = {form: graph_of(model, config.model, form, _words(config, origin)) for form in forms}
    after = sum(weight.numel() for weight in model.parameters())
    nonzero = sum(int(weight.count_nonzero()) for weight in model.parameters())
    description: dict[str, Any] = {
        "format": FORMAT,
        **origin,
        "geometry": config.model.model_dump(mode="json"),
        "heads": list(left.heads),
        "neurons": list(left.neurons),
        "tokens": selector_of(config),
        "parameters": {"dense": before, "stored": after, "nonzero": nonzero},
        "largest_logit_difference": difference,
        "kernels": kernels,
        "graphs": {form: graph.about for form, graph in graphs.items()},
        "normalisation": {"mean": list(config.data.mean), "std": list(config.data.std)},
        # What it was evaluated on, and how; not where that is.
        "evaluation": {
            "data": {**config.data.model_dump(mode="json"), "root": None},
            "recipe": config.recipe.model_dump(mode="json"),
            "seed": config.seed,
        },
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    for graph in graphs.values():
        with replacing(folder / graph.file) as temporary:
            temporary.write_bytes(graph.content)
    for form, (file, _) in FORMS.items():
        if form not in graphs:
            (folder / file).unlink(missing_ok=True)  # of an earlier export: other weights
    write_json(folder / DESCRIPTION, description)
    return description


def _words(config: Config, origin: dict[str, Any]) -> dict[str, str]:
    """What a graph's file says of itself."""
    prepared = {"mean": list(config.data.mean), "std": list(config.data.std)}
    return {
        **{key: str(value) for key, value in origin.items()},
        "normalisation": json.dumps(prepared),
        "image_size": str(config.model.image_size),
        "dataset": config.data.name,
    }


def _noise(geometry: Geometry, batch: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(batch, *geometry.input_shape, generator=draw)


def load_exported(folder: Path, kernels: Literal["measured", "dense"] = "measured") -> nn.Module:
    """The model that `export` wrote, in evaluation mode, on the CPU, with the kernels measured to be the fastest.

    Raises `UserError` where there is none, one of another format, or its kernels cannot be had here (`dense` can).
    """
    description = read_description(folder)
    model = build_model(parse_geometry(description["geometry"]), 0.0, 0)
    attach_selector(model, description["tokens"])
    cut_to(model, Sizes(tuple(description["heads"]), tuple(description["neurons"])))
    model.load_state_dict(load_file(folder / WEIGHTS))
    align(model)
    if kernels == "measured" and description["kernels"] is not None:
        apply_kernels(model, description["kernels"]["layers"])
    return model.eval()


def read_description(folder: Path) -> dict[str, Any]:
    """What `export` said of the model in a folder. Raises `UserError` where there is none, or one of another format."""
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no exported model (no {DESCRIPTION}); write one with repro export") from None
    if description.get("format") != FORMAT:
        raise UserError(f"{folder}: format {description.get('format')!r}, this code reads {FORMAT}; export it again")
    return description


def attach_selector(model: nn.Module, selector: dict[str, Any] | None) -> MethodPart | None:
    """Give a model the token selection that `selector_of` describes, untrained; None leaves it as it is."""
    if selector is None:
        return None
    module, _, name = selector["target"].rpartition(".")
    part: MethodPart = getattr(importlib.import_module(module), name)(model, **selector["arguments"])
    return part
