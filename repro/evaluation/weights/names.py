"""Translate parameter names of other trainers and libraries to those of this project's models (timm's)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from repro.errors import UserError
from repro.evaluation.weights.interpreters import split_groups

# Prefixes that wrappers add to every name: DDP, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")

# Patterns of names in other libraries, and their replacements. torchvision has renamed the layers of its MLP.
_TRANSLATIONS = (
    (r"gumbel\.", "patch_drop.scorer."),  # SViTE's token selector
    (r"class_token", "cls_token"),
    (r"conv_proj\.", "patch_embed.proj."),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.head\.", "head."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
)
_MASK, _THRESHOLD = "mask", "hard_mask_threshold"


def with_model_names(weights: Mapping[str, Tensor], names: Collection[str], source: str) -> dict[str, Tensor]:
    """Rename weights to the parameter names of a model where a translation is known.

    Prefixes of wrappers are removed in any order, torchvision's names for vision transformers are translated, and
    groups of IA-RED2 are split.

    Raises `UserError` if two weights end up with the same name.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in split_groups(weights, source).items():
        translated = _translated(name, names)
        if translated in renamed:
            raise UserError(f"{source}: two weights are named {translated} once prefixes are removed; keep one of them")
        renamed[translated] = value
    return renamed


def apply_spartan_masks(weights: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Multiply weights by the masks that Spartan's trainer stores next to them, and drop the masks.

    Returns all weights, and the names of those with a mask, in the order of the file. A mask has an entry in [0, 1] for
    each block of its weight; entries below the layer's threshold are zero (Spartan, section 3).

    Raises `UserError` for a mask that does not fit its weight.
    """
    layers = {name.removesuffix(_THRESHOLD) for name in weights if name.endswith(f".{_THRESHOLD}")}
    own = {f"{layer}{key}" for layer in layers for key in (_MASK, _THRESHOLD)}
    applied = {name: value for name, value in weights.items() if name not in own}
    masked = set()
    for layer in layers:
        weight = next((name for name in (f"{layer}weight", f"{layer}in_proj_weight") if name in applied), None)
        mask = weights.get(f"{layer}{_MASK}")
        if weight is None or mask is None:
            continue
        shape = applied[weight].shape
        try:
            mask = mask * (mask >= weights[f"{layer}{_THRESHOLD}"])
            for dimension, (size, blocks) in enumerate(zip(shape, mask.shape, strict=False)):
                mask = mask.repeat_interleave(size // blocks, dimension)
            applied[weight] = applied[weight] * mask.view(shape)
        except (RuntimeError, ZeroDivisionError):
            raise UserError(
                f"{source}: {layer}{_MASK} does not divide {weight}, of shape {tuple(shape)}, into equal blocks; "
                "download or save it again"
            ) from None
        masked.add(weight)
    return applied, tuple(name for name in applied if name in masked)


def _translated(name: str, names: Collection[str]) -> str:
    bare = name
    while bare not in names and bare.startswith(PREFIXES):
        bare = bare.partition(".")[2]
    if bare in names:
        return bare
    for pattern, replacement in _TRANSLATIONS:
        translated, count = re.subn(f"^{pattern}", replacement, bare)
        if count and translated in names:
            return translated
    return bare
