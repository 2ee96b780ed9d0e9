"""Finished sparse models against the dense one: whole ViT-B/16, batch 8, on the CPU, kernels chosen by measurement."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.figures import Figure, in_turn, median_ratio, milliseconds
from repro.composition import compose
from repro.models.backbone import build_model
from repro.models.kernels import apply_kernels, choose
from repro.models.shrink import shrink

BATCH = 8
ROUNDS = 5
# Sparsity, side of the blocks, and how many times as fast as dense the whole model is to be.
CASES = ((0.90, 1, None), (0.95, 1, 1.2), (0.975, 1, 1.5), (0.90, 16, None), (0.90, 32, 1.15))


@torch.no_grad()
def prune(model: nn.Module, sparsity: float, block: int) -> None:
    """Zero a random share of the blocks of every linear layer of the transformer's blocks; what is kept is drawn."""
    draw = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            rows, columns = (size // block for size in module.weight.shape)
            kept = torch.rand(rows, columns, generator=draw) >= sparsity
            module.weight.mul_(kept.repeat_interleave(block, 0).repeat_interleave(block, 1))


class Nothing(nn.Module):
    """A linear layer that costs nothing: what is left of a model's time is what stays dense."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Zeros of the right shape, without memory of their own."""
        return inputs.new_zeros(()).expand(*inputs.shape[:-1], self.out_features)


def limit(model: nn.Module, images: Tensor) -> float:
    """How many times as fast the model would be if its sparse layers took no time at all."""
    empty = copy.deepcopy(model)
    for name, module in list(empty.named_modules()):
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            setattr(empty.get_submodule(parent), leaf, Nothing(module))
    return median_ratio(in_turn(_forward(model, images), _forward(empty, images), ROUNDS))


def _forward(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(images)
        return logits

    return forward


def sparse_inference() -> list[Figure]:
    """One figure for each sparsity and block size."""
    geometry = compose(["backbone=deit_base"]).backbone.paper  # DeiT-Base is ViT-B/16
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    figures = []
    for sparsity, block, target in CASES:
        dense = build_model(geometry, 0.0, 0).eval()
        prune(dense, sparsity, block)
        choices = choose(dense, images)
        sparse = apply_kernels(copy.deepcopy(dense), {choice.layer: choice.kernel for choice in choices})
        first, second = _forward(dense, images), _forward(sparse, images)
        difference = float((first() - second()).abs().max())
        assert difference < 1e-3, f"logits differ by {difference}"
        pairs = in_turn(first, second, ROUNDS)
        ratio = median_ratio(pairs)
        kernels = sorted({choice.kernel for choice in choices})
        by_kernel = {
            kernel: round(
                statistics.median(
                    1 / choice.time_over_dense[kernel] for choice in choices if kernel in choice.time_over_dense
                ),
                2,
            )
            for kernel in sorted({kernel for choice in choices for kernel in choice.time_over_dense})
        }
        shape = "unstructured" if block == 1 else f"{block}x{block} blocks"
        figures.append(
            Figure(
                f"ViT-B/16 at batch {BATCH}, {100 * sparsity:g} % {shape}: times the dense speed",
                "–" if target is None else f"at least {target:g}",
                f"{ratio:.2f} (limit {limit(dense, images):.2f})",
                None if target is None else ratio >= target,
                {
                    "kernels": kernels,
                    "layer_speed_over_dense": by_kernel,
                    "largest_logit_difference": difference,
                    "dense_ms": milliseconds([dense_s for dense_s, _ in pairs]),
                    "sparse_ms": milliseconds([sparse_s for _, sparse_s in pairs]),
                },
            )
        )
    return figures


@torch.no_grad()
def silence(model: nn.Module, density: float) -> None:
    """Zero a random share of each block's heads and neurons, as `block=neuron` leaves them."""
    draw = torch.Generator().manual_seed(0)
    for block in cast(Iterable[Any], model.get_submodule("blocks")):
        heads, neurons = block.attn.num_heads, block.mlp.fc1.out_features
        gone = torch.randperm(heads, generator=draw)[round(density * heads) :]
        for part in block.attn.qkv.weight.view(3, heads, -1):
            part[gone] = 0
        block.attn.qkv.bias.view(3, heads, -1)[:, gone] = 0
        block.attn.proj.weight.view(len(block.attn.proj.weight), heads, -1)[:, gone] = 0
        gone = torch.randperm(neurons, generator=draw)[round(density * neurons) :]
        block.mlp.fc1.weight[gone] = 0
        block.mlp.fc2.weight[:, gone] = 0


def macs(model: nn.Module, tokens: int) -> int:
    """MACs of one image: each linear layer's weights once a token (patches, not the class token, in the embedding; the
    class token alone in the head), and QK^T and AV of the heads that are there."""
    count = model.get_submodule("patch_embed.proj").get_parameter("weight").numel() * (tokens - 1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            count += module.weight.numel() * (tokens if name.startswith("blocks.") else 1)
    widths = [int(block.attn.attn_dim) for block in cast(Iterable[Any], model.get_submodule("blocks"))]
    return count + sum(2 * tokens * tokens * width for width in widths)


def neurons() -> list[Figure]:
    """The time that whole heads and neurons save once they have left the matrices, against the MACs that they save."""
    geometry = compose(["backbone=deit_base"]).backbone.paper
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    figures = []
    for density in (0.75, 0.5, 0.25):
        dense = build_model(geometry, 0.0, 0).eval()
        silence(dense, density)
        small = copy.deepcopy(dense)
        shrink(small)
        first, second = _forward(dense, images), _forward(small, images)
        difference = float((first() - second()).abs().max())
        assert difference < 1e-4, f"logits differ by {difference}"
        saved = 1 - macs(small, 197) / macs(dense, 197)
        pairs = in_turn(first, second, ROUNDS)
        saving = 1 - statistics.median(small_s / dense_s for dense_s, small_s in pairs)
        figures.append(
            Figure(
                f"ViT-B/16 at batch {BATCH}, {100 * density:g} % of heads and neurons left: time saved per MACs saved",
                "at least 0.9",
                f"{saving / saved:.2f} ({100 * saving:.1f} % of the time, {100 * saved:.1f} % of the MACs)",
                saving / saved >= 0.9,
                {
                    "largest_logit_difference": difference,
                    "dense_ms": milliseconds([dense_s for dense_s, _ in pairs]),
                    "small_ms": milliseconds([small_s for _, small_s in pairs]),
                },
            )
        )
    return figures
