"""`repro interpret`: interpret the models of finished records.

interpretation.json   metrics, percent
interpretation.npz    a few images with their maps, for figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.config import Config
from repro.errors import UserError
from repro.evaluation.finished_model import finished_weights
from repro.evaluation.interpretation.imagenet_segmentation import ImageNetSegmentation
from repro.evaluation.interpretation.interpret import ImageAndMask, Interpretation, interpret
from repro.files import replacing, write_json
from repro.inference.build import masked_model
from repro.runs.record import Record
from repro.training.inputs import load_trained_splits

SCHEMA = 1


def interpret_records(
    records: Iterable[Record],
    *,
    segmentation: Path | None = None,
    limit: int | None = None,
    again: bool = False,
    log: Callable[[str], None] = print,
) -> int:
    """Interpret finished records without an interpretation of these images; return the number of records written.

    Records that cannot be interpreted (no attention between all tokens, unreadable weights or images) are logged and
    skipped.

    Args:
        segmentation: the ImageNet-Segmentation file; if None, the test images of the run's own data are used.
        limit: use only the first `limit` images.
        again: repeat existing interpretations.

    Raises `UserError` for a `limit` below one.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--images {limit}: at least one")
    written = 0
    for record in records:
        if record.result() is None:
            continue
        try:
            config = record.config()
            if not again and _is_sufficient(record.interpretation(), config, segmentation, limit):
                continue
            model = masked_model(config, finished_weights(record, "last"))
            about, images = _images(record, config, segmentation, limit)
            interpretation = interpret(config, model, images)
            _write(record, config, about, interpretation)
        except UserError as error:
            log(f"  {record.path}: {error}")
            continue
        log(f"  {record.path / 'interpretation.json'}{_summary(interpretation)}")
        written += 1
    return written


def _data_name(config: Config, segmentation: Path | None) -> str:
    return config.data.name if segmentation is None else "imagenet_segmentation"


def _images(
    record: Record, config: Config, segmentation: Path | None, limit: int | None
) -> tuple[dict[str, Any], Iterator[ImageAndMask]]:
    """Return a description of the images as JSON values, and the images with their masks."""
    data: Any
    if segmentation is not None:
        data = ImageNetSegmentation(segmentation, config)
        is_data_set = data.is_whole
    else:
        data, is_data_set = load_trained_splits(record, config).test, True
    count = len(data) if limit is None else min(len(data), limit)
    about = {
        "data": _data_name(config, segmentation),
        "is_whole": count == len(data),
        "is_the_data_set": is_data_set,
    }
    if segmentation is not None:
        return about, (data[index] for index in range(count))
    masks = getattr(data, "masks", None)
    return about, ((data[index][0], None if masks is None else masks[index]) for index in range(count))


def _is_sufficient(known: dict[str, Any] | None, config: Config, segmentation: Path | None, limit: int | None) -> bool:
    """Return whether an existing interpretation covers these images: all of them, or as many as `limit`.

    Without a `segmentation` file, an interpretation of all images of ImageNet-Segmentation is also sufficient: it has
    masks, and redrawing figures must not remove values from a table.
    """
    if known is None:
        return False
    is_whole = bool(known.get("is_whole", False))
    if known.get("data") != _data_name(config, segmentation):
        return segmentation is None and is_whole and known["images_with_mask"] > 0
    return is_whole or (limit is not None and known["images"] >= limit)


def _write(record: Record, config: Config, about: dict[str, Any], interpretation: Interpretation) -> None:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.data.mean, config.data.std))
    examples = interpretation.examples
    arrays: dict[str, Any] = {
        "images": np.stack([_to_uint8(example["image"] * std + mean) for example in examples]),
        "kept": np.stack([example["kept"].numpy() for example in examples]),
    }
    if all(example["mask"] is not None for example in examples):
        arrays["masks"] = np.stack([example["mask"].numpy() for example in examples])
    for name in examples[0]["maps"]:
        arrays[f"map_{name}"] = np.stack([example["maps"][name].numpy() for example in examples]).astype(np.float16)
    with replacing(record.path / "interpretation.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    # Metrics are written last, so that a record with metrics also has the images.
    write_json(record.path / "interpretation.json", {"schema": SCHEMA, **about, **interpretation.metrics()})


def _to_uint8(image: Tensor) -> Any:
    """Convert an image in [0, 1], (channels, height, width), to uint8 (height, width, 3)."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return pixels.expand(-1, -1, 3).numpy() if pixels.shape[2] == 1 else pixels.numpy()


def _summary(interpretation: Interpretation) -> str:
    metrics = interpretation.metrics()
    parts = [f"{name} mIoU {values['mean_iou_pct']:.1f}" for name, values in metrics["maps"].items()]
    parts += [
        f"stage {number} keeps {stage['object_kept_pct']:.0f} % of the object, {stage['background_kept_pct']:.0f} % of "
        "the background"
        for number, stage in enumerate(metrics["stages"], start=1)
        if "object_kept_pct" in stage
    ]
    return f": {'; '.join(parts)}" if parts else ""
