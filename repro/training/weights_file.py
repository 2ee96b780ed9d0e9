"""Files of trained weights without their zeros: the values of nonzero entries, and one bit per entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from repro.files import replacing

_VALUES, _BITS = "#values", "#bits"
_WORTHWHILE = 1 / 16  # share of zeros above which the bits take less space than the zeros they replace


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict of tensors as safetensors, atomically; `read_weights` returns equal tensors."""
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in weights.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        active = flat != 0
        if not flat.is_floating_point() or float((~active).float().mean() if len(flat) else 0) < _WORTHWHILE:
            stored[name] = flat.view(tensor.shape).clone()
            continue
        shapes[name] = list(tensor.shape)
        stored[name + _VALUES] = flat[active]
        stored[name + _BITS] = torch.from_numpy(np.packbits(active.numpy()))
    with replacing(path) as temporary:
        save_file(stored, temporary, metadata={"shapes": json.dumps(shapes)})


def is_packed(metadata: Mapping[str, str] | None) -> bool:
    """Return whether a file with this metadata was written by `write_weights`."""
    return "shapes" in (metadata or {})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors that were passed to `write_weights`, on the CPU."""
    weights: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as stored:
        shapes: dict[str, list[int]] = json.loads(stored.metadata()["shapes"])
        for name in stored.keys():  # noqa: SIM118 (not a dict: it has no iterator)
            if name.endswith(_BITS):
                continue
            if not name.endswith(_VALUES):
                weights[name] = stored.get_tensor(name)
                continue
            original = name.removesuffix(_VALUES)
            values = stored.get_tensor(name)
            size = int(np.prod(shapes[original]))
            bits = np.unpackbits(stored.get_tensor(original + _BITS).numpy(), count=size).astype(bool)
            dense = torch.zeros(size, dtype=values.dtype)
            dense[torch.from_numpy(bits)] = values
            weights[original] = dense.view(shapes[original])
    return weights
