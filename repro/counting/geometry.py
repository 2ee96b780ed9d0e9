"""The geometry of a backbone, and its layers, parameters and MACs, counted without building it.

A family of backbones has one class here, one builder in `repro/models/` and a case in `repro.models.backbone`. All
other code uses only the interface of `_Backbone`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from repro.counting.layers import DenseModel, Layer


class _Backbone(BaseModel, ABC):
    """The interface of all families, with defaults for those without tokens. `image_size` is in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_size: PositiveInt
    in_chans: PositiveInt
    num_classes: PositiveInt

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image (channels, height, width), or of one clip (frames, channels, height, width)."""
        return (self.in_chans, self.image_size, self.image_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one image; 0 without tokens."""
        return 0

    @property
    def tokens(self) -> int:
        """Tokens of one image, class token included; 0 without tokens."""
        return 0

    @property
    def token_width(self) -> int:
        """Width of a token's embedding; 0 without tokens."""
        return 0

    @property
    def attention_heads(self) -> int:
        """Attention heads of each block; 0 without tokens."""
        return 0

    @property
    def token_blocks(self) -> int:
        """Number of transformer blocks; 0 without tokens."""
        return 0

    @property
    def units(self) -> Mapping[str, int]:
        """Kinds of units that can be removed as a whole, with the number of units per block."""
        return {}

    @abstractmethod
    def layers(self, tokens: int) -> list[Layer]:
        """The prunable weights in the model's order, applied to `tokens` tokens after the embedding."""

    def dense_model(self, tokens: int | None = None) -> DenseModel:
        """The backbone with nothing removed, run on `tokens` tokens after the embedding (None: all)."""
        count = self.tokens if tokens is None else tokens
        return DenseModel(tuple(self.layers(count)), self.vector_params, self.attention_macs(count))

    @property
    def has_joint_attention(self) -> bool:
        """Whether each block has a single attention, from all tokens to all tokens."""
        return False

    def attention_macs(self, tokens: int) -> int:
        """MACs of the products between activations (QK^T and AV) for one image, which involve no weights."""
        return 0

    @property
    @abstractmethod
    def vector_params(self) -> int:
        """Number of parameters that are never sparse: biases, norms, tokens and position embeddings."""

    def errors(self) -> list[str]:
        """One message for each pair of incompatible values."""
        return []


class _Transformer(_Backbone, ABC):
    """A transformer on square patches with a class token. `image_size` and `patch_size` are in pixels."""

    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    mlp_ratio: int = Field(gt=0)
    patch_size: PositiveInt

    @property
    def patches_per_frame(self) -> int:
        """Patches of one image, or of one frame of a clip."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return self.patches_per_frame

    @property
    def tokens(self) -> int:
        """Tokens of one image or clip, class token included."""
        return self.patches + 1

    @property
    def token_width(self) -> int:
        """Width of the embedding."""
        return self.embed_dim

    @property
    def attention_heads(self) -> int:
        """Attention heads of each block."""
        return self.num_heads

    @property
    def token_blocks(self) -> int:
        """Number of transformer blocks."""
        return self.depth

    def errors(self) -> list[str]:
        """Messages if `num_heads` does not divide `embed_dim`, or `patch_size` does not divide `image_size`."""
        errors = []
        if self.embed_dim % self.num_heads:
            errors.append(f"model.num_heads={self.num_heads}: does not divide model.embed_dim={self.embed_dim}")
        if self.image_size % self.patch_size:
            errors.append(f"model.patch_size={self.patch_size}: does not divide model.image_size={self.image_size}")
        return errors


class ViT(_Transformer):
    """A vision transformer."""

    architecture: Literal["vit"]
    weight_init: Literal["", "jax", "moco"] = ""
    # Standard deviation of the initial position embedding; None for timm's, 0.02. Signatures are older than this key.
    position_std: float | None = Field(default=None, gt=0, exclude_if=lambda std: std is None)

    @property
    def has_joint_attention(self) -> bool:
        """True."""
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
    """A video transformer with divided space-time attention (Bertasius et al., ICML 2021). Its images are clips.

    A block attends over time among the patches at one position, then over space among those of one frame, with the
    class token repeated in every frame.
    """

    architecture: Literal["timesformer"]
    frames: PositiveInt
    weight_init: Literal["", "xavier"] = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one clip: frames, channels, height, width."""
        return (self.frames, self.in_chans, self.image_size, self.image_size)

    @property
    def patches(self) -> int:
        """Patch tokens of one clip, ordered by position, then by frame."""
        return self.patches_per_frame * self.frames

    def layers(self, tokens: int) -> list[Layer]:
        """Patch embedding; temporal attention, spatial attention and MLP of each block; head."""
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
        """QK^T and AV over time and over space, assuming that dropped tokens are spread evenly."""
        patches = tokens - 1
        pairs = patches * patches / self.patches_per_frame + self.frames * (patches / self.frames + 1) ** 2
        return round(self.depth * 2 * pairs * self.embed_dim)

    @property
    def vector_params(self) -> int:
        """Biases, norms, class token, spatial and temporal position embeddings."""
        dim, hidden = self.embed_dim, self.embed_dim * self.mlp_ratio
        block = 2 * (3 * dim + dim) + dim + hidden + dim + 3 * 2 * dim
        embedding = dim + dim + (self.patches_per_frame + 1) * dim + self.frames * dim
        return embedding + self.depth * block + 2 * dim + self.num_classes


class ResNet(_Backbone):
    """A residual network of bottleneck blocks (He et al., CVPR 2016, table 1), with the stride in the 3x3 convolution.

    `blocks` is the number of blocks per stage, `channels` the width of their 3x3 convolutions; a stage's output is four
    times as wide. The `stem` is ImageNet's (a 7x7 convolution with stride 2 and max pooling with stride 2) or, for
    small images, a 3x3 convolution with stride 1.
    """

    architecture: Literal["resnet"]
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    stem: Literal["imagenet", "small"]

    def layers(self, tokens: int = 0) -> list[Layer]:
        """All convolutions and the classifier; `tokens` is ignored."""
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
        """Scale and shift of the batch norm after each convolution, and the classifier's bias."""
        return sum(2 * layer.shape[0] for layer in self.layers() if len(layer.shape) == 4) + self.num_classes


EXPANSION = 4  # output channels of a bottleneck block, per channel of its 3x3 convolution
STEM_CHANNELS = 64  # fixed by timm's class


def _halved(side: int) -> int:
    """Output size of a padded convolution or pooling with stride 2."""
    return (side + 1) // 2


Geometry = Annotated[ViT | ResNet | TimeSformer, Field(discriminator="architecture")]

_ADAPTER: TypeAdapter[Geometry] = TypeAdapter(Geometry)


def parse_geometry(values: Mapping[str, Any]) -> Geometry:
    """Build a geometry from the values of its `model_dump`. Raises pydantic's `ValidationError`."""
    return _ADAPTER.validate_python(values)
