"""Whether sparse layers are faster on this device: each kernel that a layer can have, chosen by measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.figures import Figure
from benchmarks.pruning import prune
from repro.inference.kernel_selection import MAX_LOGIT_DIFFERENCE, KernelSearch, select_form
from repro.models.vit import build_vit


def exported(
    name: str, geometry: Mapping[str, Any], device: torch.device, batch: int, sparsity: float, block: int
) -> Iterator[Figure]:
    """Time a whole exported model relative to the dense one. That no sparse kernel is faster is a valid result.

    Its logits must equal those of the masked model within the tolerance of an export.
    """
    shape: Any = SimpleNamespace(**geometry)
    model = build_vit(shape, 0.0, 0).to(device).eval()
    prune(model, sparsity, block)
    draw = torch.Generator().manual_seed(0)
    size = geometry["image_size"]
    images = torch.randn(batch, geometry["in_chans"], size, size, generator=draw).to(device)
    found = select_form(model, model, images, KernelSearch(len(images)))
    taken = Counter(found["layers"].values())
    kernels = ", ".join(f"{kernel} in {count} layers" for kernel, count in sorted(taken.items())) or "all layers dense"
    zeros = "unstructured" if block == 1 else f"{block}x{block} blocks"
    apart = found["largest_logit_difference"]
    yield Figure(
        f"{name}, {100 * sparsity:g} % {zeros}, batch {batch}: exported, times the dense speed",
        "–",
        f"{1 / found['time_over_masked']['again']:.2f} ({kernels}; limit {1 / found['limit_over_masked']:.2f})",
        None,
        found,
    )
    yield Figure(
        f"{name}, {100 * sparsity:g} % {zeros}, batch {batch}: largest difference of logits with kernels",
        f"at most {MAX_LOGIT_DIFFERENCE:g}",
        "no kernel was taken" if apart is None else f"{apart:.1e}",
        apart is None or apart <= MAX_LOGIT_DIFFERENCE,
        {},
    )
