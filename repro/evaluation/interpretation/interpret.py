"""Heat maps and kept patches of a model over images, with metrics against true masks if available."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import Config
from repro.evaluation.interpretation.attention import attention_maps
from repro.evaluation.interpretation.heat_maps import class_attention, rollout, score_map, to_pixels
from repro.evaluation.interpretation.segmentation import confusion, metrics, segment
from repro.models.token_dropping import drop_instead_of_masking, tracing

EXAMPLES = 6  # images stored for the figure
MIN_OBJECT_COVER = 0.5  # minimum share of mask pixels in object patches; background patches have none

ImageAndMask = tuple[Tensor, Tensor | None]


@dataclass
class StageCounts:
    """Number of patches that enter a token dropping stage, and that it keeps, in total and by true class."""

    patches: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def add(self, kept: Tensor, mask: Tensor | None) -> None:
        """Count one image with kept patches `kept`, bool (patches,), and object mask `mask`, bool (size, size)."""
        shares = {"kept_pct": torch.ones_like(kept)}
        if mask is not None:
            side = math.isqrt(len(kept))
            size = len(mask) // side
            cover = mask.view(side, size, side, size).float().mean((1, 3)).flatten()
            shares |= {"object_kept_pct": cover >= MIN_OBJECT_COVER, "background_kept_pct": cover == 0}
        for name, patches in shares.items():
            self.patches[name] += int(patches.sum())
            self.kept[name] += int((kept & patches).sum())

    def metrics(self) -> dict[str, float]:
        """Return the shares of kept patches in percent, with those of object and background if there were masks."""
        shares = {name: 100 * self.kept[name] / count for name, count in self.patches.items() if count}
        has_both_classes = {"object_kept_pct", "background_kept_pct"} <= shares.keys()
        return shares if has_both_classes else {"kept_pct": shares["kept_pct"]}


@dataclass
class Interpretation:
    """Counts over images by heat map and by token dropping stage, and the first images as examples."""

    images: int = 0
    images_with_mask: int = 0
    counts: dict[str, Tensor] = field(default_factory=dict)
    stages: list[StageCounts] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def metrics(self) -> dict[str, Any]:
        """Return `maps`, the segmentation metrics by heat map, and `stages`, the shares of kept patches, in percent."""
        return {
            "images": self.images,
            "images_with_mask": self.images_with_mask,
            "maps": {name: metrics(counts) for name, counts in self.counts.items()},
            "stages": [stage.metrics() for stage in self.stages],
        }


@torch.inference_mode()
def interpret(config: Config, model: nn.Module, images: Iterable[ImageAndMask]) -> Interpretation:
    """Interpret a run's model on images.

    The model must be in evaluation mode, on the CPU. Images are normalised as in training, float32 (channels, size,
    size), each with the mask of its object, bool (size, size), or None. They are processed one at a time, so that each
    has only the tokens it keeps, without padding.

    Raises `UserError` for a model without attention between all tokens.
    """
    patches, size = config.model.patches, config.model.image_size
    result = Interpretation()
    drop_instead_of_masking(model)  # masked tokens would still appear in the maps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # token selectors may sample
        for image, mask in images:
            with tracing(model) as traces, attention_maps(model, patches, traces) as maps:
                model(image[None])
            heat = {"class_attention": class_attention(maps), "rollout": rollout(maps)}
            if traces:
                heat = {"token_scores": score_map(traces), **heat}
            pixels = {name: to_pixels(values, size) for name, values in heat.items()}
            result.images += 1
            result.stages = result.stages or [StageCounts() for _ in traces]
            for stage, trace in zip(result.stages, traces, strict=True):
                stage.add(trace.kept[0].cpu(), mask)
            if mask is not None:
                result.images_with_mask += 1
                for name, values in pixels.items():
                    result.counts[name] = result.counts.get(name, 0) + confusion(segment(values), mask)
            if len(result.examples) < EXAMPLES:
                kept = torch.stack([trace.kept[0] for trace in traces]) if traces else torch.ones(0, patches) > 0
                result.examples.append({"image": image, "mask": mask, "kept": kept, "maps": pixels})
    return result
