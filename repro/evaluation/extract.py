"""`repro extract`: store in each record the data of its finished model that figures show.

Reports neither import torch nor open checkpoints; they read `anatomy.json` from the records that have it: which heads
are active, and which patches the token selector keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import Config
from repro.errors import UserError
from repro.evaluation.finished_model import finished_weights
from repro.files import write_json
from repro.inference.build import masked_model
from repro.inference.shrink import active_heads
from repro.models.token_dropping import tracing
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.training.inputs import load_trained_splits

IMAGES = 8


def extract(records: Iterable[Record], *, again: bool = False, log: Callable[[str], None] = print) -> int:
    """Write `anatomy.json` to finished records without it, or with `again`, to all; return the number of files written.

    Records whose weights or images cannot be read are logged and skipped.
    """
    written = 0
    for record in records:
        if record.result() is None or (record.anatomy() is not None and not again):
            continue
        try:
            config = record.config()
            test = load_trained_splits(record, config).test
            images = torch.stack([test[index][0] for index in range(min(IMAGES, len(test)))])
            write_json(record.path / "anatomy.json", inspect_model(config, finished_weights(record, "last"), images))
        except UserError as error:
            log(f"  {record.path}: {error}")
            continue
        log(f"  {record.path / 'anatomy.json'}")
        written += 1
    return written


@torch.inference_mode()
def inspect_model(config: Config, weights: dict[str, Tensor], images: Tensor) -> dict[str, Any]:
    """Return the data of a run's model that a report shows, as the JSON values of `anatomy.json`.

    Args:
        images: (N, channels, height, width), normalised as in training, of which the first eight are used; or clips,
            (N, frames, channels, height, width), of which the first eight frames are used.

    Returns:
        `heads`: layers x heads, whether each head is active; empty for a model whose heads cannot be removed.
        `images`: N x height x width, greyscale in [0, 1]; only if the model drops patches.
        `kept`: stages x N x patches, whether each patch is kept; only if the model drops patches.
        `patch_size`: in pixels; only if the model drops patches.
    """
    model = masked_model(config, weights)
    blocks: Any = getattr(model, "blocks", ())
    heads = torch.zeros(len(blocks), config.model.units.get("heads", 0), dtype=torch.bool)
    for layer, block in enumerate(blocks if heads.shape[1] else ()):
        heads[layer, active_heads(block.attn)] = True
    anatomy: dict[str, Any] = {"schema": ANATOMY_SCHEMA, "heads": heads.tolist()}
    images = images[:IMAGES]
    kept = kept_patches(model, images) if config.method.tokens is not None else None
    if kept is None:
        return anatomy
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.data.mean, config.data.std))
    grey = (images * std + mean).mean(-3).clamp(0, 1)
    if images.dim() == 5:  # patches are ordered by position, then frame: treat frames as images
        kept = kept.unflatten(2, (-1, images.shape[1])).transpose(2, 3).flatten(1, 2)[:, :IMAGES]
        grey = grey.flatten(0, 1)[:IMAGES]
    anatomy["images"] = [[[round(value, 3) for value in row] for row in image] for image in grey.tolist()]
    anatomy["kept"] = kept.tolist()
    anatomy["patch_size"] = config.model.image_size // math.isqrt(kept.shape[2])
    return anatomy


def kept_patches(model: nn.Module, images: Tensor) -> Tensor | None:
    """Return which patches the model keeps after each stage, bool (stages, N, patches); None if it drops none."""
    with tracing(model) as traces:
        model(images)
    return torch.stack([trace.kept for trace in traces]) if traces else None
