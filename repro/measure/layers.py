"""The prunable weights of a backbone, and what else it has and does: counted from its geometry, without building it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from repro.config import AnyGeometry, Geometry, ResNetGeometry

STEM_WIDTH = 64  # channels that timm's class has after its stem, whatever its stages
_EXPANSION = 4  # channels that a bottleneck puts out, over those inside it


@dataclass(frozen=True)
class Layer:
    """One prunable weight: its shape and how often each entry is used for one image."""

    name: str
    shape: tuple[int, ...]
    uses: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Whole:
    """A whole backbone as it is counted.

    Attributes:
        layers: its prunable weights, in the model's order.
        vector_params: parameters that are never sparse: biases, norms, class token, position embedding.
        attention_macs: products of activations with each other (QK^T and AV), for one image.
    """

    layers: tuple[Layer, ...]
    vector_params: int
    attention_macs: int

    @property
    def params(self) -> int:
        """All parameters."""
        return self.vector_params + sum(layer.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """All MACs of one image."""
        return self.attention_macs + sum(layer.size * layer.uses for layer in self.layers)


def whole(model: AnyGeometry, tokens: int | None = None) -> Whole:
    """A backbone, dense; a vision transformer goes on with `tokens` tokens after the embedding (None: all)."""
    if isinstance(model, ResNetGeometry):
        layers = tuple(resnet_layers(model))
        norms = sum(2 * layer.shape[0] for layer in layers if len(layer.shape) == 4)
        return Whole(layers, norms + model.num_classes, 0)
    going_on = model.tokens if tokens is None else tokens
    attention = model.depth * 2 * going_on * going_on * model.embed_dim
    return Whole(tuple(vit_layers(model, going_on)), vit_vector_params(model), attention)


def vit_layers(model: Geometry, tokens: int) -> list[Layer]:
    """The prunable weights of a vision transformer that goes on with `tokens` tokens after the embedding."""
    dim, hidden = model.embed_dim, model.embed_dim * model.mlp_ratio
    layers = [Layer("patch_embed.proj", (dim, model.in_chans, model.patch_size, model.patch_size), model.patches)]
    for index in range(model.depth):
        layers += [
            Layer(f"blocks.{index}.attn.qkv", (3 * dim, dim), tokens),
            Layer(f"blocks.{index}.attn.proj", (dim, dim), tokens),
            Layer(f"blocks.{index}.mlp.fc1", (hidden, dim), tokens),
            Layer(f"blocks.{index}.mlp.fc2", (dim, hidden), tokens),
        ]
    return [*layers, Layer("head", (model.num_classes, dim), 1)]


def vit_vector_params(model: Geometry) -> int:
    """Biases, norms, class token and position embedding: never sparse."""
    dim, hidden = model.embed_dim, model.embed_dim * model.mlp_ratio
    block = 3 * dim + dim + hidden + dim + 4 * dim
    return dim + dim + model.tokens * dim + model.depth * block + 2 * dim + model.num_classes


def resnet_layers(model: ResNetGeometry) -> Iterator[Layer]:
    """The prunable weights of a ResNet of bottlenecks: convolutions, used at each place of their output, and fc."""
    side = (model.image_size - 1) // model.stem_stride + 1  # an odd kernel, padded by half of it
    yield Layer("conv1", (STEM_WIDTH, model.in_chans, model.stem_kernel, model.stem_kernel), side**2)
    side = (side - 1) // 2 + 1 if model.stem_pool else side
    width = STEM_WIDTH
    for stage, (depth, inner) in enumerate(zip(model.stage_depths, model.stage_channels, strict=True), start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            before, side = side, (side - 1) // stride + 1
            name, outer = f"layer{stage}.{block}", inner * _EXPANSION
            yield Layer(f"{name}.conv1", (inner, width, 1, 1), before**2)
            yield Layer(f"{name}.conv2", (inner, inner, 3, 3), side**2)
            yield Layer(f"{name}.conv3", (outer, inner, 1, 1), side**2)
            if stride != 1 or width != outer:
                yield Layer(f"{name}.downsample.0", (outer, width, 1, 1), side**2)
            width = outer
    yield Layer("fc", (model.num_classes, width), 1)
