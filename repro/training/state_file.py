"""A file of weights, whoever wrote it: safetensors, or what `torch.save` writes, a state dict or one below a key."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from repro.data.splits import first_few
from repro.errors import UserError
from repro.training.weights_file import is_packed, read_weights

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".tar")
# Below which key trainings keep their weights: DeiT's and ours, timm's, and what others write.
KEYS = ("model", "state_dict", "model_state_dict")
# What wrappers put before every name.
PREFIXES = ("module.", "_orig_mod.")


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by name, on the CPU; what a wrapper has put before every name is taken off.

    Nothing but tensors and plain values is read: a file runs no code. Raises `UserError` for a file that is none.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as stored:
                packed = is_packed(stored.metadata())
            found: Any = read_weights(path) if packed else load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose words recommend to run what is in the file
        raise UserError(f"{path}: no file of weights, or more than weights in it; save its state dict alone") from None
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: no file of weights ({first}); valid: {', '.join(ENDINGS)}, tensors alone") from None
    for key in KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{path}: no weights in it; a state dict is expected, or one below {', '.join(KEYS)}")
    weights = dict(found)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def check_fits(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Raise `UserError`, one line, unless these are the weights of such a model: each name, each shape."""
    own = model.state_dict()
    faults = []
    if missing := sorted(set(own) - set(weights)):
        faults.append(f"without {first_few(missing)}")
    if extra := sorted(set(weights) - set(own)):
        faults.append(f"with {first_few(extra)}, which it does not have")
    shapes = [
        f"{name} {_sizes(weights[name])} for {_sizes(own[name])}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if shapes:
        faults.append(first_few(shapes))
    if faults:
        raise UserError(
            f"{source}: not the weights of this model: {'; '.join(faults)}; say which it is with backbone=, method= "
            "and --scale"
        )


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """sha256, in hex, of names, types, shapes and values: the same whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sizes(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
