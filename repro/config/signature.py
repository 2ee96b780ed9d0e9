"""The signature of a config: a hash of everything that can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from repro.class_names import first_name

# Keys that cannot change a result. All other keys are part of the signature.
NOT_IN_SIGNATURE = (
    "run",
    "launcher",
    "tracker",
    "data.root",
    "data.workers",
    "data.download",
    "backbone.paper",  # `model` is the geometry that is trained
    "backbone.local",
    "backbone.mini",
    "backbone.training.beta_max",  # the value that is used is in `method.weights`
    "method.weights.cost_model",  # decides how a method's cost is counted, not what the method does
    "method.tokens.cost_model",
)
# Keys that were added later. With these values a run does what it did before the keys existed, so the signature omits
# them.
EARLIER_DEFAULTS = {"data.decoder": "pil", "method.weights.masks": "all", "method.tokens.temperature": "falling"}
# Per-device batch sizes decide how much memory a run needs. Like the number of devices, they change only rounding and
# which random draws an image gets, except in a model with batch norm. They used to be part of the signature. For the
# recipes of that time they are therefore hashed with the values below, so that existing records keep their signatures;
# for other recipes they are omitted.
# Architectures whose micro-batch is always in the signature, because batch norm averages over it.
WITH_BATCH_NORM = ("resnet",)
# By recipe: its micro_batch, the micro_batch of a staged fine-tuning (`RecipeChanges`), and its eval_batch.
FORMER_BATCHES = {
    "deit300_paper": (128, 32, 256),
    "deit_local": (64, 64, 360),
    "deit_paper": (128, 32, 256),
    "deit_smoke": (64, 64, 360),
    "resnet50_local": (64, 64, 360),
    "resnet50_paper": (256, 256, 256),
    "resnet50_smoke": (64, 64, 360),
    "shapes_local": (64, 64, 256),
    "shapes_smoke": (64, 64, 256),
    "timesformer_local": (32, 32, 128),
    "timesformer_paper": (8, 8, 32),
    "timesformer_smoke": (32, 32, 128),
    "vit_base_local": (64, 64, 360),
    "vit_base_paper": (128, 128, 256),
    "vit_base_smoke": (64, 64, 360),
}


def signature(resolved: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of the canonical JSON of a resolved config.

    Keys in `NOT_IN_SIGNATURE`, and those in `EARLIER_DEFAULTS` with that value, are omitted; per-device batch sizes are
    replaced as `FORMER_BATCHES` says. Raises `TypeError` or `ValueError` for a value that JSON cannot represent exactly
    (an object, NaN, infinity).
    """
    return _hash(_hashed_values(resolved))


def former_signature(resolved: Mapping[str, Any]) -> str | None:
    """Return the signature from when it included the actual per-device batch sizes; None if it is the same."""
    former, current = _hashed_values(resolved, has_own_batches=True), _hashed_values(resolved)
    return None if former == current else _hash(former)


def signatures(config: BaseModel, seeds: Iterable[int]) -> dict[int, str]:
    """Return the signature of a config with each of these seeds, by seed."""
    values = _hashed_values(config.model_dump(mode="json"))
    return {seed: _hash({**values, "seed": seed}) for seed in seeds}


def can_change_a_result(override: str) -> bool:
    """Return whether an override, such as `recipe.epochs=3`, is of a key in the signature."""
    key = override.partition("=")[0].lstrip("+~")
    return not any(f"{key}.".startswith(f"{other}.") for other in NOT_IN_SIGNATURE)


def _hashed_values(resolved: Mapping[str, Any], *, has_own_batches: bool = False) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(resolved, allow_nan=False))
    for key in NOT_IN_SIGNATURE:
        section, last = _section_of(key, values)
        section.pop(last, None)
    for key, default in EARLIER_DEFAULTS.items():
        section, last = _section_of(key, values)
        if section.get(last) == default:
            del section[last]
    for part in (values["method"]["weights"], values["method"]["tokens"]):
        if part is not None and part["target"] is not None:
            part["target"] = first_name(part["target"])
    if not has_own_batches:
        _replace_batches(values)
    return values


def _replace_batches(values: dict[str, Any]) -> None:
    """Set per-device batch sizes to the values in `FORMER_BATCHES`, or remove them if the recipe is not in it."""
    recipe, is_known = values["recipe"], values["recipe"]["name"] in FORMER_BATCHES
    micro_batch, finetune_micro_batch, eval_batch = FORMER_BATCHES.get(recipe["name"], (None, None, None))
    changes = (values["method"]["finetune"] or {}).get("changes")
    batches = [(recipe, "eval_batch", eval_batch)]
    if values["model"]["architecture"] not in WITH_BATCH_NORM:
        batches.append((recipe, "micro_batch", micro_batch))
        batches += [(changes, "micro_batch", finetune_micro_batch)] if changes else []
    for section, key, former in batches:
        if is_known:
            section[key] = former
        else:
            del section[key]


def _section_of(key: str, values: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the section that holds `key` (empty if the config has no such section), and the last word of the key."""
    *sections, last = key.split(".")
    for name in sections:
        values = values[name] or {}
    return values, last


def _hash(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
