"""TimeSformer with layers of the transformers package, over all tokens of a clip or over the remaining ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from repro.counting.geometry import TimeSformer as Shape
from repro.errors import UserError
from repro.models.token_execution import drop_path_by_image

try:
    from transformers import TimesformerConfig
    from transformers.models.timesformer.modeling_timesformer import TimesformerForVideoClassification
except ImportError:
    raise UserError("TimeSformer needs the transformers package; pip install 'repro-sparse-vit[video]'") from None


_MAX_POSITIONS = 2**32  # more patches than any frame has


class SpaceTimeBlock(nn.Module):
    """One layer of the transformers package, with the interface of timm's blocks."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @property
    def attn(self) -> Any:
        """Attention over space."""
        return self.layer.attention.attention

    def forward(self, values: Tensor) -> Tensor:
        """Map (clips, 1 + positions * frames, width) to the same shape."""
        output: Tensor = self.layer(values)[0]
        return output


class TimeSformer(nn.Module):
    """A video transformer whose blocks attend over time, then over space.

    Attributes:
        embed_dim: width of a token.
        run_at_positions: runs its blocks over some of a clip's tokens, see `run_remaining`.
    """

    def __init__(self, shape: Shape, drop_path: float) -> None:
        super().__init__()
        classifier: Any = TimesformerForVideoClassification(
            TimesformerConfig(
                image_size=shape.image_size,
                patch_size=shape.patch_size,
                num_channels=shape.in_chans,
                num_frames=shape.frames,
                hidden_size=shape.embed_dim,
                num_hidden_layers=shape.depth,
                num_attention_heads=shape.num_heads,
                intermediate_size=shape.embed_dim * shape.mlp_ratio,
                num_labels=shape.num_classes,
            )
        )
        self.embeddings = classifier.timesformer.embeddings
        layers = classifier.timesformer.encoder.layer
        for number, layer in enumerate(layers):  # the package's config accepts only integer rates
            layer.drop_path = DropPath(drop_path * number / max(1, len(layers) - 1))
        self.blocks = nn.Sequential(*(SpaceTimeBlock(layer) for layer in layers))
        self.norm = classifier.timesformer.layernorm
        self.head = classifier.classifier
        self.embed_dim = shape.embed_dim
        self.run_at_positions = functools.partial(run_remaining, frames=shape.frames)

    def no_weight_decay(self) -> set[str]:
        """Return parameters without weight decay, for timm."""
        return {f"embeddings.{name}" for name in ("cls_token", "position_embeddings", "time_embeddings")}

    def forward(self, clips: Tensor) -> Tensor:
        """Map (clips, frames, channels, height, width) to logits, (clips, classes).

        For several views per clip, (clips, views, frames, channels, height, width), return the logarithm of the class
        probabilities averaged over views.
        """
        if clips.dim() == 6:
            views = self(clips.flatten(0, 1)).float().log_softmax(-1).view(*clips.shape[:2], -1)
            mean: Tensor = views.logsumexp(1) - torch.tensor(float(clips.shape[1])).log()
            return mean
        values = self.norm(self.blocks(self.embeddings(clips)))
        logits: Tensor = self.head(values[:, 0])
        return logits


def build_timesformer(geometry: Shape, drop_path: float, seed: int) -> nn.Module:
    """Build a TimeSformer, with weights drawn from `seed`.

    Args:
        drop_path: stochastic depth rate of the last block; it increases linearly from 0 at the first.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TimeSformer(geometry, drop_path)
        if geometry.weight_init == "xavier":  # the usual standard deviation of 0.02 is too small for a narrow model
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear) and name != "head":
                    nn.init.xavier_uniform_(module.weight)
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    return model


def run_remaining(
    blocks: Sequence[SpaceTimeBlock], values: Tensor, valid: Tensor | None, positions: Tensor, frames: int
) -> Tensor:
    """Run blocks over only the remaining tokens of each clip.

    A patch attends over time to the remaining patches at its position, and over space to those of its frame.

    Args:
        values: (clips, n, width), the class token first.
        valid: bool (clips, n - 1): patches that are not padding; None if there is no padding.
        positions: int64 (clips, n - 1): index of each patch in the clip, ordered by position, then by frame.
    """
    clips = len(values)
    present = torch.ones_like(positions, dtype=torch.bool) if valid is None else valid
    indices = present.flatten().nonzero().flatten()
    clip = indices // max(1, present.shape[1])
    position = positions.flatten()[indices]
    columns, column = (clip * _MAX_POSITIONS + position // frames).unique(return_inverse=True)
    over_time = _Rows(column, len(columns))
    # Every frame has a class token.
    over_space = _Rows(clip * frames + position % frames, clips * frames, reserved=1)
    clip_of_token = torch.cat([torch.arange(clips, device=clip.device), clip])
    # One tensor for all tokens, class tokens first: a separate product for the few class tokens would read all weights
    # again.
    tokens = torch.cat([values[:, 0], values[:, 1:].flatten(0, 1).index_select(0, indices)])
    for block in blocks:
        tokens = _run_layer(block.layer, tokens, clip_of_token, clips, over_time, over_space)
    tokens = tokens.to(values.dtype)
    patches = values.new_zeros(present.numel(), values.shape[2]).index_copy(0, indices, tokens[clips:])
    return torch.cat([tokens[:clips, None], patches.view(*present.shape, patches.shape[1])], dim=1)


class _Rows:
    """A padded layout of packed tokens in rows; each token attends within its row.

    Attributes:
        slots: index of each token in the flattened rows, int64 (tokens,).
        filled: bool (rows, longest): slots that are not padding.

    Args:
        row: the row of each token, int64 (tokens,).
        reserved: number of leading columns of every row that are kept free for other tokens.
    """

    def __init__(self, row: Tensor, rows: int, reserved: int = 0) -> None:
        counts = torch.bincount(row, minlength=rows)
        order = row.argsort(stable=True)
        first = counts.cumsum(0) - counts
        column = torch.empty_like(row)
        column[order] = torch.arange(len(row), device=row.device) - first[row[order]]
        longest = reserved + (int(counts.max()) if rows else 0)
        self.shape = (rows, longest)
        self.slots = row * longest + reserved + column
        self.filled = torch.arange(longest, device=row.device) < counts[:, None] + reserved

    def unpack(self, packed: Tensor) -> Tensor:
        """Unpack (tokens, width) to (rows, longest, width), padded with zeros."""
        rows, longest = self.shape
        padded = packed.new_zeros(rows * longest, packed.shape[1])
        return padded.index_copy(0, self.slots, packed).view(rows, longest, packed.shape[1])

    def pack(self, padded: Tensor) -> Tensor:
        """The inverse of `unpack`."""
        return padded.flatten(0, 1).index_select(0, self.slots)


def _run_layer(
    layer: Any, tokens: Tensor, clip_of_token: Tensor, clips: int, over_time: _Rows, over_space: _Rows
) -> Tensor:
    """Run one layer over packed tokens, (clips + patches, width), class tokens first."""
    patches = tokens[clips:]
    temporal = layer.temporal_attention.attention
    # Run even without patches: the weights then have a zero gradient instead of none, for which other ranks would wait.
    qkv = temporal.qkv(layer.temporal_layernorm(patches))
    attended = qkv[:, : tokens.shape[1]]
    if len(patches):
        attended = over_time.pack(_attend(temporal, over_time.unpack(qkv), over_time.filled))
    timed = drop_path_by_image(layer.drop_path, layer.temporal_attention.output(attended), clip_of_token[clips:], clips)
    tokens = torch.cat([tokens[:clips], patches + layer.temporal_dense(timed)])
    attention = layer.attention.attention
    qkv = attention.qkv(layer.layernorm_before(tokens))
    padded = over_space.unpack(qkv[clips:])
    # The class token is the same in every frame: it is projected once, and its outputs are averaged.
    padded.view(clips, -1, *padded.shape[1:])[:, :, 0] = qkv[:clips, None]
    attended = _attend(attention, padded, over_space.filled)
    class_tokens = attended[:, 0].view(clips, -1, attended.shape[2]).mean(1)
    spatial = layer.attention.output(torch.cat([class_tokens, over_space.pack(attended)]))
    tokens = tokens + drop_path_by_image(layer.drop_path, spatial, clip_of_token, clips)
    expanded = layer.intermediate(layer.layernorm_after(tokens))
    return tokens + drop_path_by_image(layer.drop_path, layer.output(expanded), clip_of_token, clips)


def _attend(attention: Any, qkv: Tensor, filled: Tensor) -> Tensor:
    """Attend within rows: map queries, keys and values, (rows, tokens, 3 * width), to (rows, tokens, width)."""
    rows, tokens, _ = qkv.shape
    query, key, value = qkv.view(rows, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    output = functional.scaled_dot_product_attention(query, key, value, attn_mask=filled[:, None, None, :])
    return output.transpose(1, 2).reshape(rows, tokens, -1)
