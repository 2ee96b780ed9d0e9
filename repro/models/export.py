"""Finished models on disk: as small as they can be, with all that is needed to build them again.

DIR/model.safetensors    the weights
DIR/model.json           geometry, heads and neurons of each block, token selection, where it comes from
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn

from repro.config import AnyGeometry, Config, Geometry
from repro.errors import UserError
from repro.measure.cost import tokens_kept, tokens_of
from repro.models.backbone import build_model
from repro.models.shrink import Sizes, cut_to, shrink
from repro.runs.files import replacing, write_json

FORMAT = 1
_GEOMETRY: TypeAdapter[AnyGeometry] = TypeAdapter(AnyGeometry)
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def masked_model(config: Config, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The model of a finished run as it was trained: full matrices, zeros where it is sparse; in evaluation mode."""
    model = build_model(config.model, 0.0, config.seed)
    attach_selector(model, selector_of(config))
    model.load_state_dict(weights)
    return model.eval()


def selector_of(config: Config) -> dict[str, Any] | None:
    """How to make the run's token selection again: its class and arguments; None without one."""
    part = config.method.tokens
    if part is None:
        return None
    arguments = {"tokens": tokens_of(config.model), "kept": tokens_kept(config.model, part), "updates": 1, "seed": 0}
    return {"target": part.target, "arguments": {**arguments, **part.options}}


def export(config: Config, weights: dict[str, torch.Tensor], folder: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Write the finished model, with heads and neurons that say nothing removed; returns its description.

    A ResNet has neither: it is written as it is.

    Args:
        config: the run's.
        weights: its model's state dict, zero where it is sparse.
        folder: made where it is not there; an earlier export in it is replaced.
        origin: what to say about where it comes from (row, signature, record), as JSON values.
    """
    model = masked_model(config, weights)
    before = sum(weight.numel() for weight in model.parameters())
    is_vit = isinstance(config.model, Geometry)
    left = shrink(model) if is_vit else Sizes((), ())
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
        "normalisation": {"mean": list(config.data.mean), "std": list(config.data.std)},
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    write_json(folder / DESCRIPTION, description)
    return description


def load_exported(folder: Path) -> nn.Module:
    """The model that `export` wrote, in evaluation mode, on the CPU.

    Raises `UserError` where there is none, or one of another format.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no exported model (no {DESCRIPTION}); write one with repro export") from None
    if description.get("format") != FORMAT:
        raise UserError(f"{folder}: format {description.get('format')!r}, this code reads {FORMAT}; export it again")
    model = build_model(_GEOMETRY.validate_python(description["geometry"]), 0.0, 0)
    attach_selector(model, description["tokens"])
    if description["heads"]:
        cut_to(model, Sizes(tuple(description["heads"]), tuple(description["neurons"])))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval()


def attach_selector(model: nn.Module, selector: dict[str, Any] | None) -> None:
    """Give a model the token selection that `selector_of` describes, untrained; None leaves it as it is."""
    if selector is None:
        return
    module, _, name = selector["target"].rpartition(".")
    getattr(importlib.import_module(module), name)(model, **selector["arguments"])
