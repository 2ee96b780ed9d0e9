"""`repro interpret`: what finished models look at, measured against true masks where there are any.

interpretation.json   metrics, percent
interpretation.npz    a few images with their maps, for figures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.config import Config
from repro.data.splits import load_splits
from repro.errors import UserError
from repro.interpretation.attention import attention_maps
from repro.interpretation.heat_maps import class_attention, rollout, score_map, to_pixels
from repro.interpretation.imagenet_segmentation import ImageNetSegmentation
from repro.interpretation.segmentation import Counts, segment
from repro.models.export import masked_model
from repro.runs.files import replacing, write_json
from repro.runs.record import Record
from repro.tokens.dropping import Trace, drop_instead_of_hiding, tracing
from repro.training.finished import finished_weights

SCHEMA = 1
SHOWN = 6  # images in the figure
# A patch is of the object where its mask covers half of it, of the background where it covers none.
OBJECT_COVER = 0.5

Picture = tuple[Tensor, Tensor | None]


@dataclass
class _Stage:
    """Patches of one stage by what they are, and those of them that stayed."""

    patches: int = 0
    kept: int = 0
    of_object: int = 0
    object_kept: int = 0
    of_background: int = 0
    background_kept: int = 0


@dataclass
class Interpretation:
    """What is gathered over images; `metrics` says it in percent."""

    images: int = 0
    with_mask: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)
    stages: list[_Stage] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)

    def metrics(self) -> dict[str, Any]:
        """`maps`: segmentation metrics by heat map; `stages`: shares of patches kept. Both only where there are masks,
        but for `kept_pct`."""
        stages = []
        for stage in self.stages:
            found = {"kept_pct": 100 * stage.kept / stage.patches}
            if stage.of_object and stage.of_background:
                found["object_kept_pct"] = 100 * stage.object_kept / stage.of_object
                found["background_kept_pct"] = 100 * stage.background_kept / stage.of_background
            stages.append(found)
        maps = {name: counts.metrics() for name, counts in self.counts.items()}
        return {"images": self.images, "images_with_mask": self.with_mask, "maps": maps, "stages": stages}


@torch.inference_mode()
def interpret(config: Config, model: nn.Module, pictures: Iterable[Picture]) -> Interpretation:
    """Look at images one at a time, each with the tokens that it keeps and no padding.

    Args:
        config: of the run; `model` is its model, in evaluation mode, on the CPU.
        pictures: images, normalised as in training, float32 (channels, size, size), each with its object's mask, bool
            (size, size), or None.

    Raises `UserError` for a model without attention of tokens to tokens.
    """
    patches, size = config.model.patches, config.model.image_size
    found = Interpretation()
    drop_instead_of_hiding(model)  # what is merely hidden would still be in the maps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a selector may draw
        for image, mask in pictures:
            with tracing(model) as traces, attention_maps(model, patches, traces) as maps:
                model(image[None])
            heat = {"class_attention": class_attention(maps), "rollout": rollout(maps)}
            if traces:
                heat = {"token_scores": score_map(traces), **heat}
            pixels = {name: to_pixels(each, size) for name, each in heat.items()}
            _count(found, traces, pixels, mask, patches)
            if len(found.shown) < SHOWN:
                kept = torch.stack([trace.kept[0] for trace in traces]) if traces else torch.ones(0, patches) > 0
                found.shown.append({"image": image, "mask": mask, "kept": kept, "maps": pixels})
    return found


def _count(
    found: Interpretation, traces: list[Trace], pixels: dict[str, Tensor], mask: Tensor | None, patches: int
) -> None:
    found.images += 1
    found.stages = found.stages or [_Stage() for _ in traces]
    for stage, trace in zip(found.stages, traces, strict=True):
        stage.patches += patches
        stage.kept += int(trace.kept.sum())
    if mask is None:
        return
    found.with_mask += 1
    for name, each in pixels.items():
        found.counts[name] = found.counts.get(name, Counts()) + Counts.of(segment(each), mask)
    side = int(patches**0.5)
    size = len(mask) // side
    cover = mask.view(side, size, side, size).float().mean((1, 3)).flatten()
    for stage, trace in zip(found.stages, traces, strict=True):
        kept, is_object, is_background = trace.kept[0].cpu(), cover >= OBJECT_COVER, cover == 0
        stage.of_object += int(is_object.sum())
        stage.object_kept += int((kept & is_object).sum())
        stage.of_background += int(is_background.sum())
        stage.background_kept += int((kept & is_background).sum())


def data_of(config: Config, segmentation: Path | None) -> str:
    """What the images are called that `pictures_of` gives."""
    return config.data.name if segmentation is None else "imagenet_segmentation"


def pictures_of(config: Config, segmentation: Path | None, limit: int | None) -> tuple[bool, Iterator[Picture]]:
    """The images to look at, the file's or the test images of the run's own data, and whether they are all of those.

    Raises `UserError` where either cannot be read.
    """
    if segmentation is not None:
        file = ImageNetSegmentation(segmentation, config)
        first = _first(len(file), limit)
        return first == len(file), (file[index] for index in range(first))
    test: Any = load_splits(config.data, config.recipe, config.model).test
    masks = getattr(test, "masks", None)
    first = _first(len(test), limit)
    return first == len(test), ((test[index][0], None if masks is None else masks[index]) for index in range(first))


def interpret_records(
    records: Iterable[Record],
    *,
    segmentation: Path | None = None,
    limit: int | None = None,
    again: bool = False,
    tell: Callable[[str], None] = print,
) -> int:
    """Write the interpretation of finished records of vision transformers that have none; returns how many it wrote.

    One of other images, or of fewer, is replaced. What cannot be interpreted (no attention of tokens to tokens, weights
    or images that cannot be read) is told and left out. Raises `UserError` for a `limit` below one.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--images {limit}: at least one")
    written = 0
    for record in records:
        if record.result() is None:
            continue
        try:
            config = record.config()
            name = data_of(config, segmentation)
            if not again and _is_enough(record.interpretation(), name, segmentation is not None, limit):
                continue
            model = masked_model(config, finished_weights(record, "last"))
            is_whole, pictures = pictures_of(config, segmentation, limit)
            about = {"data": name, "is_whole": is_whole, "is_the_data_set": _is_the_data_set(config, segmentation)}
            found = interpret(config, model, pictures)
        except UserError as error:
            tell(f"  {record.path}: {error}")
            continue
        _write(record, config, about, found)
        tell(f"  {record.path / 'interpretation.json'}{_summary(found)}")
        written += 1
    return written


def _is_enough(known: dict[str, Any] | None, name: str, is_of_file: bool, limit: int | None) -> bool:
    """Whether a record's interpretation is of these images: of all of them, or of as many as are asked for.

    Where no file is asked for, one of all images of such a file stays: its masks say more than images without any, and
    a figure that is drawn again must not take the values from a table.
    """
    if known is None:
        return False
    is_whole = bool(known.get("is_whole", False))
    if known.get("data") != name:
        return not is_of_file and is_whole and known["images_with_mask"] > 0
    return is_whole or (limit is not None and known["images"] >= limit)


def _is_the_data_set(config: Config, segmentation: Path | None) -> bool:
    """Whether the images are those of the data set that `data_of` names: a file may be of a part of it."""
    return segmentation is None or ImageNetSegmentation(segmentation, config).is_whole


def _first(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


def _write(record: Record, config: Config, images: dict[str, Any], found: Interpretation) -> None:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.data.mean, config.data.std))
    shown: dict[str, Any] = {
        "images": np.stack([_pixels(each["image"] * std + mean) for each in found.shown]),
        "kept": np.stack([each["kept"].numpy() for each in found.shown]),
    }
    if all(each["mask"] is not None for each in found.shown):
        shown["masks"] = np.stack([each["mask"].numpy() for each in found.shown])
    for key in found.shown[0]["maps"]:
        shown[f"map_{key}"] = np.stack([each["maps"][key].numpy() for each in found.shown]).astype(np.float16)
    with replacing(record.path / "interpretation.npz") as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **shown)
    # The metrics come last: with them, the images are there.
    write_json(record.path / "interpretation.json", {"schema": SCHEMA, **images, **found.metrics()})


def _pixels(image: Tensor) -> Any:
    """An image in [0, 1], (channels, height, width), as uint8 (height, width, 3)."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return pixels.expand(-1, -1, 3).numpy() if pixels.shape[2] == 1 else pixels.numpy()


def _summary(found: Interpretation) -> str:
    said = found.metrics()
    words = [f"{name} mIoU {values['mean_iou_pct']:.1f}" for name, values in said["maps"].items()]
    words += [
        f"stage {number} keeps {stage['object_kept_pct']:.0f} % of the object, {stage['background_kept_pct']:.0f} % of "
        "the background"
        for number, stage in enumerate(said["stages"], start=1)
        if "object_kept_pct" in stage
    ]
    return f": {'; '.join(words)}" if words else ""
