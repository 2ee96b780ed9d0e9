"""Find the state dict in a trainer's checkpoint, and load it into a model."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import UserError, first_few
from repro.evaluation.weights.checkpoint_file import describe_unknown, read_checkpoint
from repro.evaluation.weights.names import apply_spartan_masks, with_model_names

# Keys of trained weights and of their exponential moving average in DeiT, SViTE, timm, Lightning and others.
RAW_KEYS = ("model", "state_dict", "model_state_dict", "net", "network", "module", "weights")
EMA_KEYS = ("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema", "ema_model")
# Layers that no backbone here has, and the models that have them. Without such a layer, the outputs would be others.
_OTHER_MODELS = {
    r"^dist_token$|^head_dist\.": "distilled DeiT models",
    r"^pre_logits\.": "vision transformers with a layer before the head (pre_logits, of older versions of timm)",
    r"^fc_norm\.": "vision transformers that average their tokens (fc_norm)",
    r"\.ls1\.gamma$|\.gamma_1$": "vision transformers with LayerScale, such as DeiT III",
}


@dataclass(frozen=True)
class StateDict:
    """The weights read from a file.

    Attributes:
        key: key of the weights in the file, such as `model` or `model_ema`; empty if the file is a state dict.
        is_ema: whether the weights are an exponential moving average.
        alternative: key of the other kind of weights if the file has both; else empty.
        epoch: epoch of training, counted from 0, if the file states it.
        masked: names of the weights to which masks in the file were applied.
    """

    weights: dict[str, Tensor]
    key: str = ""
    is_ema: bool = False
    alternative: str = ""
    epoch: int | None = None
    masked: tuple[str, ...] = ()


def read_state_dict(path: Path, ema: bool = False) -> StateDict:
    """Return the weights in a checkpoint file, or with `ema`, their exponential moving average.

    Masks of an unfinished training with Spartan are applied. Without `ema`, the average is returned if the file has
    nothing else. Raises `UserError` if the file cannot be read or has no such weights.
    """
    contents = read_checkpoint(path)
    content = contents.value
    if _is_state_dict(content):
        if ema:
            raise UserError(f"{path}: a single state dict, without an EMA; leave out --ema")
        weights, masked = apply_spartan_masks(content, str(path))
        return StateDict(weights, masked=masked)
    raw, average = _find(content, RAW_KEYS), _find(content, EMA_KEYS)
    if ema and average is None:
        raise UserError(f"{path}: no EMA of the weights (none of {', '.join(EMA_KEYS)}); leave out --ema")
    chosen = average if ema or raw is None else raw
    if chosen is None:
        if contents.unknown_classes and not _has_tensors(content):
            raise UserError(f"{path}: {describe_unknown(contents.unknown_classes)}")
        keys = (
            f"it has {first_few([str(key) for key in content], 6)}" if isinstance(content, Mapping) else "it has none"
        )
        raise UserError(f"{path}: no weights found; expected a state dict, or one below {', '.join(RAW_KEYS)}; {keys}")
    other = raw if chosen is average else average
    key = chosen[0]
    weights, masked = apply_spartan_masks(chosen[1], str(path))
    epoch = content.get("epoch")
    return StateDict(
        weights,
        key,
        chosen is average,
        other[0] if other is not None else "",
        epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None,
        masked,
    )


def _find(content: Any, keys: tuple[str, ...]) -> tuple[str, dict[str, Tensor]] | None:
    """Return the key and value of the first state dict under one of these keys, or one level deeper."""
    for key in keys:
        value = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        if _is_state_dict(value):
            return key, dict(value)
        if (nested := _find(value, RAW_KEYS)) is not None:
            return f"{key}.{nested[0]}", nested[1]
    return None


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _has_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_tensors(each) for each in value.values())
    return isinstance(value, Tensor)


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    advice: str = "set backbone=, method= and --scale to those of the weights",
) -> dict[str, Tensor]:
    """Load weights into a model in place, converted to its names and dtypes; return the converted weights.

    `advice` is appended to the message if the weights belong to another model.

    Raises a one-line `UserError` for missing, unexpected or misshapen weights, and for values that are not finite.
    """
    own = model.state_dict()
    renamed = with_model_names(weights, own, source)
    _check_fit(renamed, own, source, advice)
    check_finite(renamed, source)
    fitted = {name: renamed[name].to(own[name].dtype) for name in own}
    model.load_state_dict(fitted)
    return fitted


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise `UserError` if any weight is NaN or infinite."""
    bad = {name: int((~value.isfinite()).sum()) for name, value in weights.items() if value.is_floating_point()}
    if names := [f"{name} ({count} of {weights[name].numel()})" for name, count in bad.items() if count]:
        raise UserError(
            f"{source}: weights are NaN or infinite: {first_few(names)}; the training diverged, or the file is damaged"
        )


def _check_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, advice: str) -> None:
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    misshapen = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if not (missing or extra or misshapen):
        return
    if not (missing or extra) and (overrides := _geometry_overrides(weights, own, misshapen)):
        raise UserError(f"{source}: weights of a model with other sizes; set {' '.join(overrides)}")
    faults = []
    if missing:
        faults.append(f"without {first_few(missing)}")
    if extra:
        faults.append(f"with {first_few(extra)}, which the model does not have")
    if misshapen:
        shapes = [f"{name} {_sizes(weights[name])} instead of {_sizes(own[name])}" for name in misshapen]
        faults.append(first_few(shapes))
    for pattern, kind in _OTHER_MODELS.items():
        if any(re.search(pattern, name) for name in extra):
            advice = f"{kind} are not among the backbones here"
    raise UserError(f"{source}: not the weights of this model: {'; '.join(faults)}; {advice}")


def _geometry_overrides(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], misshapen: list[str]) -> list[str]:
    """Return overrides of `model` that would explain these shapes; empty if there are none."""
    overrides = []
    rest = set(misshapen)
    for layer in ("head", "fc"):
        head = {f"{layer}.weight", f"{layer}.bias"} & rest
        if head and all(weights[name].shape[1:] == own[name].shape[1:] for name in head):
            overrides.append(f"model.num_classes={len(weights[f'{layer}.weight'])}")
            rest -= head
    if "pos_embed" in rest and weights["pos_embed"].shape[2:] == own["pos_embed"].shape[2:]:
        patch = own["patch_embed.proj.weight"].shape[-1]
        patches = weights["pos_embed"].shape[1] - 1
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            overrides.append(f"model.image_size={math.isqrt(patches) * patch}")
            rest.discard("pos_embed")
    return overrides if not rest else []


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 digest, in hex, of names, dtypes, shapes and values, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sizes(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
