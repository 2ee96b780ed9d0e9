"""The shape of a backbone, and what follows from it without building it: layers, parameters, MACs. Imports no torch.

A family of backbones is one class here, one builder in `repro/models/` and a case in `repro.models.backbone`; all else
knows only what `_Shape` names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from repro.layer import Layer


class _Shape(BaseModel, ABC):
    """What every family has, and what it answers where it has no such thing. `image_size` in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: PositiveInt
    in_chans: PositiveInt
    num_classes: PositiveInt

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One image: channels, height, width; of a video's clip, frames before them."""
        return (self.in_chans, self.image_size, self.image_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one image; 0 without tokens."""
        return 0

    @property
    def tokens(self) -> int:
        """Tokens of one image, the class token among them; 0 without tokens."""
        return 0

    @property
    def token_width(self) -> int:
        """Numbers that a token consists of; 0 without tokens."""
        return 0

    @property
    def attention_heads(self) -> int:
        """Heads of a block's attention, none of them removed; 0 without tokens."""
        return 0

    @property
    def token_blocks(self) -> int:
        """Blocks that tokens go through; 0 without tokens."""
        return 0

    @property
    def units(self) -> Mapping[str, int]:
        """Units of each block that can be removed whole, and how many there are."""
        return {}

    @abstractmethod
    def layers(self, tokens: int) -> list[Layer]:
        """The prunable weights, in the model's order, of one that goes on with `tokens` tokens after the embedding."""

    @property
    def has_joint_attention(self) -> bool:
        """Whether a block is one attention of all of its tokens to all of them."""
        return False

    def attention_macs(self, tokens: int) -> int:
        """MACs of one image between activations (QK^T and AV): no weight takes part in them."""
        return 0

    @property
    @abstractmethod
    def vector_params(self) -> int:
        """Biases, norms, tokens and positions: parameters that are never sparse."""

    def faults(self) -> list[str]:
        """One message for each pair of values that do not go together."""
        return []


class _Transformer(_Shape, ABC):
    """A transformer on square patches, with a class token. `image_size` and `patch_size` in pixels."""

    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    mlp_ratio: int = Field(gt=0)
    patch_size: PositiveInt

    @property
    def places(self) -> int:
        """Patches of one image, or of one frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return self.places

    @property
    def tokens(self) -> int:
        """Tokens of one image, or of one clip, the class token among them."""
        return self.patches + 1

    @property
    def token_width(self) -> int:
        """The embedding's dimensions."""
        return self.embed_dim

    @property
    def attention_heads(self) -> int:
        """Those of any block."""
        return self.num_heads

    @property
    def token_blocks(self) -> int:
        """All of its blocks."""
        return self.depth

    def faults(self) -> list[str]:
        """Heads must share the embedding out, patches the image."""
        found = []
        if self.embed_dim % self.num_heads:
            found.append(f"model.num_heads={self.num_heads}: does not divide model.embed_dim={self.embed_dim}")
        if self.image_size % self.patch_size:
            found.append(f"model.patch_size={self.patch_size}: does not divide model.image_size={self.image_size}")
        return found


class ViT(_Transformer):
    """A vision transformer."""

    architecture: Literal["vit"]
    weight_init: Literal["", "jax", "moco"] = ""

    @property
    def has_joint_attention(self) -> bool:
        """It is."""
        return True

    @property
    def units(self) -> Mapping[str, int]:
        """Attention heads, and neurons of the MLP."""
        return {"heads": self.num_heads, "neurons": self.embed_dim * self.mlp_ratio}

    def layers(self, tokens: int) -> list[Layer]:
        """Patch embedding, qkv, proj, fc1 and fc2 of each block, head."""
        dim, hidden = self.embed_dim, self.embed_dim * self.mlp_ratio
        layers = [Layer("patch_embed.proj", (dim, self.in_chans, self.patch_size, self.patch_size), self.patches)]
        for index in range(self.depth):
            layers += [
                Layer(f"blocks.{index}.attn.qkv", (3 * dim, dim), tokens, rows_of="heads", block=index),
                Layer(f"blocks.{index}.attn.proj", (dim, dim), tokens, columns_of="heads", block=index),
                Layer(f"blocks.{index}.mlp.fc1", (hidden, dim), tokens, rows_of="neurons", block=index),
                Layer(f"blocks.{index}.mlp.fc2", (dim, hidden), tokens, columns_of="neurons", block=index),
            ]
        return [*layers, Layer("head", (self.num_classes, dim), 1)]

    def attention_macs(self, tokens: int) -> int:
        """QK^T and AV of all blocks."""
        return self.depth * 2 * tokens * tokens * self.embed_dim

    @property
    def vector_params(self) -> int:
        """Biases, norms, class token and position embedding."""
        dim, hidden = self.embed_dim, self.embed_dim * self.mlp_ratio
        block = 3 * dim + dim + hidden + dim + 4 * dim
        return dim + dim + self.tokens * dim + self.depth * block + 2 * dim + self.num_classes


class TimeSformer(_Transformer):
    """A video transformer with divided space-time attention (Bertasius et al., ICML 2021). An image here is a clip.

    A block attends over time among the patches of one place, then over space among those of one frame, to which the
    class token is added in every frame.
    """

    architecture: Literal["timesformer"]
    frames: PositiveInt
    weight_init: Literal["", "xavier"] = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One clip: frames, channels, height, width."""
        return (self.frames, self.in_chans, self.image_size, self.image_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one clip: place by place, and within a place frame by frame."""
        return self.places * self.frames

    def layers(self, tokens: int) -> list[Layer]:
        """Patch embedding; attention over time and over space and the MLP of each block; head."""
        dim, hidden, patches = self.embed_dim, self.embed_dim * self.mlp_ratio, tokens - 1
        embedding = (dim, self.in_chans, self.patch_size, self.patch_size)
        layers = [Layer("embeddings.patch_embeddings.projection", embedding, self.patches)]
        for block in range(self.depth):
            shapes = {
                "attention.attention.qkv": ((3 * dim, dim), patches + self.frames),
                "attention.output.dense": ((dim, dim), patches + self.frames),
                "intermediate.dense": ((hidden, dim), tokens),
                "output.dense": ((dim, hidden), tokens),
                "temporal_attention.attention.qkv": ((3 * dim, dim), patches),
                "temporal_attention.output.dense": ((dim, dim), patches),
                "temporal_dense": ((dim, dim), patches),
            }
            layers += [
                Layer(f"blocks.{block}.layer.{name}", shape, uses, block=block)
                for name, (shape, uses) in shapes.items()
            ]
        return [*layers, Layer("head", (self.num_classes, dim), 1)]

    def attention_macs(self, tokens: int) -> int:
        """QK^T and AV over time and over space; fewer tokens than all are taken to be spread evenly."""
        patches = tokens - 1
        pairs = patches * patches / self.places + self.frames * (patches / self.frames + 1) ** 2
        return round(self.depth * 2 * pairs * self.embed_dim)

    @property
    def vector_params(self) -> int:
        """Biases, norms, class token, positions in space and time."""
        dim, hidden = self.embed_dim, self.embed_dim * self.mlp_ratio
        block = 2 * (3 * dim + dim) + dim + hidden + dim + 3 * 2 * dim
        embedding = dim + dim + (self.places + 1) * dim + self.frames * dim
        return embedding + self.depth * block + 2 * dim + self.num_classes


class ResNet(_Shape):
    """A residual network of bottleneck blocks (He et al., CVPR 2016, table 1), stride in the 3x3 convolution.

    `blocks` are those of each stage, `channels` the width of their 3x3 convolutions; a stage puts out four times that.
    The `stem` is either ImageNet's (7x7 at stride 2, max pooling at stride 2) or a 3x3 at stride 1 for small images.
    """

    architecture: Literal["resnet"]
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    stem: Literal["imagenet", "small"]

    def layers(self, tokens: int = 0) -> list[Layer]:
        """All convolutions and the classifier; `tokens` means nothing here."""
        kernel, side = (7, _halved(self.image_size)) if self.stem == "imagenet" else (3, self.image_size)
        layers = [Layer("conv1", (STEM_CHANNELS, self.in_chans, kernel, kernel), side**2)]
        side = _halved(side) if self.stem == "imagenet" else side
        inputs = STEM_CHANNELS
        for stage, (count, width) in enumerate(zip(self.blocks, self.channels, strict=True), start=1):
            outputs = width * EXPANSION
            for index in range(count):
                before, side = side, _halved(side) if stage > 1 and index == 0 else side
                name = f"layer{stage}.{index}"
                layers += [
                    Layer(f"{name}.conv1", (width, inputs, 1, 1), before**2),
                    Layer(f"{name}.conv2", (width, width, 3, 3), side**2),
                    Layer(f"{name}.conv3", (outputs, width, 1, 1), side**2),
                ]
                if index == 0 and (stage > 1 or inputs != outputs):
                    layers.append(Layer(f"{name}.downsample.0", (outputs, inputs, 1, 1), side**2))
                inputs = outputs
        return [*layers, Layer("fc", (self.num_classes, inputs), 1)]

    @property
    def vector_params(self) -> int:
        """Scale and shift of the batch norm behind each convolution, and the classifier's bias."""
        return sum(2 * layer.shape[0] for layer in self.layers() if len(layer.shape) == 4) + self.num_classes


EXPANSION = 4  # a bottleneck block puts out four times its width
STEM_CHANNELS = 64  # fixed by timm's class


def _halved(side: int) -> int:
    """The side of what a convolution or pooling at stride 2 puts out, padded to keep the middle."""
    return (side + 1) // 2


Geometry = Annotated[ViT | ResNet | TimeSformer, Field(discriminator="architecture")]

_ADAPTER: TypeAdapter[Geometry] = TypeAdapter(Geometry)


def parse_geometry(values: Mapping[str, Any]) -> Geometry:
    """A geometry from plain values, as `model_dump` gives them. Raises pydantic's `ValidationError`."""
    return _ADAPTER.validate_python(values)
