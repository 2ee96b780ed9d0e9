"""Sparse ViT-B/16 relative to the dense model, at batch 8 on the CPU, with kernels chosen by measurement."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from benchmarks.pruning import prune
from repro.config.compose import compose
from repro.inference.kernel_selection import KernelSearch, select_form
from repro.inference.kernels import apply_kernels
from repro.inference.shrink import align, shrink
from repro.models.backbone import build_model

BATCH = 8
ROUNDS = 5
NEURON_ROUNDS = 9  # more, because the differences are smaller
# Sparsity, side of the blocks, and target speed of the whole model relative to the dense one.
CASES = ((0.90, 1, None), (0.95, 1, 1.2), (0.975, 1, 1.5), (0.90, 16, None), (0.90, 32, 1.15))


def _forward(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(images)
        return logits

    return forward


def sparse_inference() -> list[Figure]:
    """Return one figure per sparsity and block size."""
    geometry = compose(["backbone=deit_base"]).backbone.paper  # DeiT-Base is ViT-B/16
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    figures = []
    for sparsity, block, target in CASES:
        dense = build_model(geometry, 0.0, 0).eval()
        prune(dense, sparsity, block)
        selected = select_form(dense, dense, images, KernelSearch(len(images)))
        sparse = apply_kernels(copy.deepcopy(dense), selected["layers"])
        pairs = in_turn(_forward(dense, images), _forward(sparse, images), ROUNDS)
        ratio = median_ratio(pairs)
        kernels = sorted({kernel for tried in selected["tried"].values() for kernel in tried})
        by_kernel = {
            kernel: round(
                statistics.median(1 / tried[kernel] for tried in selected["tried"].values() if kernel in tried), 2
            )
            for kernel in kernels
        }
        shape = "unstructured" if block == 1 else f"{block}x{block} blocks"
        figures.append(
            Figure(
                f"ViT-B/16 at batch {BATCH}, {100 * sparsity:g} % {shape}: times the dense speed",
                "–" if target is None else f"at least {target:g}",
                f"{ratio:.2f} (limit {1 / selected['limit_over_masked']:.2f})",
                None if target is None else ratio >= target,
                {
                    "form": selected["form"],
                    "kernels": sorted(set(selected["layers"].values())),
                    "layer_speed_over_dense": by_kernel,
                    "largest_logit_difference": selected["largest_logit_difference"],
                    "dense_ms": milliseconds([dense_s for dense_s, _ in pairs]),
                    "sparse_ms": milliseconds([sparse_s for _, sparse_s in pairs]),
                },
            )
        )
    return figures


@torch.no_grad()
def prune_units(model: nn.Module, density: float) -> None:
    """Zero all but a random share `density` of each block's heads and neurons, as `block=neuron` does."""
    draw = torch.Generator().manual_seed(0)
    for block in cast(Iterable[Any], model.get_submodule("blocks")):
        heads, neurons = block.attn.num_heads, block.mlp.fc1.out_features
        removed = torch.randperm(heads, generator=draw)[round(density * heads) :]
        for part in block.attn.qkv.weight.view(3, heads, -1):
            part[removed] = 0
        block.attn.qkv.bias.view(3, heads, -1)[:, removed] = 0
        block.attn.proj.weight.view(len(block.attn.proj.weight), heads, -1)[:, removed] = 0
        removed = torch.randperm(neurons, generator=draw)[round(density * neurons) :]
        block.mlp.fc1.weight[removed] = 0
        block.mlp.fc2.weight[:, removed] = 0


def macs(model: nn.Module, tokens: int) -> int:
    """Count the MACs of one image: weights of linear layers per token, and QK^T and AV of the remaining heads.

    The embedding processes only patches, the head only the class token.
    """
    count = model.get_submodule("patch_embed.proj").get_parameter("weight").numel() * (tokens - 1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            count += module.weight.numel() * (tokens if name.startswith("blocks.") else 1)
    widths = [int(block.attn.attn_dim) for block in cast(Iterable[Any], model.get_submodule("blocks"))]
    return count + sum(2 * tokens * tokens * width for width in widths)


def neurons() -> list[Figure]:
    """Return the time saved by removing whole heads and neurons, relative to the MACs saved."""
    geometry = compose(["backbone=deit_base"]).backbone.paper
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    figures = []
    for density in (0.75, 0.5, 0.303, 0.25):  # 0.303 leaves 931 neurons, an odd width, and 4 of 12 heads
        dense = build_model(geometry, 0.0, 0).eval()
        prune_units(dense, density)
        small = copy.deepcopy(dense)
        shrink(small)
        saved = 1 - macs(small, 197) / macs(dense, 197)
        align(small)  # as `load_exported` does
        first, second = _forward(dense, images), _forward(small, images)
        difference = float((first() - second()).abs().max())
        assert difference < 1e-4, f"logits differ by {difference}"
        pairs = in_turn(first, second, NEURON_ROUNDS)
        saving = 1 - statistics.median(small_s / dense_s for dense_s, small_s in pairs)
        figures.append(
            Figure(
                f"ViT-B/16 at batch {BATCH}, {100 * density:g} % of heads and neurons left: time saved per MACs saved",
                "at least 0.9",
                f"{saving / saved:.2f} ({100 * saving:.1f} % of the time; limit {100 * saved:.1f} %, that of the MACs)",
                saving / saved >= 0.9,
                {
                    "largest_logit_difference": difference,
                    "dense_ms": milliseconds([dense_s for dense_s, _ in pairs]),
                    "small_ms": milliseconds([small_s for _, small_s in pairs]),
                },
            )
        )
    return figures
