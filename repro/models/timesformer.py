"""TimeSformer: the transformers package's layers, over all tokens of a clip or over those that are left of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from repro.errors import UserError
from repro.geometry import TimeSformer as Shape
from repro.tokens.execution import by_image

try:
    from transformers import TimesformerConfig
    from transformers.models.timesformer.modeling_timesformer import TimesformerForVideoClassification
except ImportError:
    raise UserError("TimeSformer needs the transformers package; pip install 'repro-sparse-vit[video]'") from None


_MORE_THAN_PLACES = 2**32  # that any frame has


class SpaceTimeBlock(nn.Module):
    """One layer of the transformers package, as a block of tokens."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @property
    def attn(self) -> Any:
        """Its attention over space."""
        return self.layer.attention.attention

    def forward(self, values: Tensor) -> Tensor:
        """All tokens of a clip, (clips, 1 + places x frames, width)."""
        out: Tensor = self.layer(values)[0]
        return out


class TimeSformer(nn.Module):
    """Clips to logits. Each block attends over time, then over space.

    Attributes:
        embed_dim: width of a token.
        run_placed: how its blocks run over some of a clip's tokens, see `run_left`.
    """

    def __init__(self, shape: Shape, drop_path: float) -> None:
        super().__init__()
        whole: Any = TimesformerForVideoClassification(
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
        self.embeddings = whole.timesformer.embeddings
        layers = whole.timesformer.encoder.layer
        for number, layer in enumerate(layers):  # the package's config takes no rate that is not an int
            layer.drop_path = DropPath(drop_path * number / max(1, len(layers) - 1))
        self.blocks = nn.Sequential(*(SpaceTimeBlock(layer) for layer in layers))
        self.norm = whole.timesformer.layernorm
        self.head = whole.classifier
        self.embed_dim = shape.embed_dim
        self.run_placed = functools.partial(run_left, frames=shape.frames)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are no weights: timm asks for them."""
        return {f"embeddings.{name}" for name in ("cls_token", "position_embeddings", "time_embeddings")}

    def forward(self, clips: Tensor) -> Tensor:
        """(clips, frames, channels, height, width) to logits (clips, classes).

        Of several views of each, (clips, views, frames, channels, height, width), the logarithm of the mean over views
        of the classes' probabilities.
        """
        if clips.dim() == 6:
            every = self(clips.flatten(0, 1)).float().log_softmax(-1).view(*clips.shape[:2], -1)
            mean: Tensor = every.logsumexp(1) - torch.tensor(float(clips.shape[1])).log()
            return mean
        values = self.norm(self.blocks(self.embeddings(clips)))
        logits: Tensor = self.head(values[:, 0])
        return logits


def build_timesformer(geometry: Shape, drop_path: float, seed: int) -> nn.Module:
    """A TimeSformer, its weights drawn from `seed` alone.

    Args:
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Raises `UserError` where the transformers package is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TimeSformer(geometry, drop_path)
        if geometry.weight_init == "xavier":  # the usual deviation of 0.02 is too little for a narrow model to learn
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear) and name != "head":
                    nn.init.xavier_uniform_(module.weight)
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
    return model


def run_left(
    blocks: Sequence[SpaceTimeBlock], values: Tensor, valid: Tensor | None, places: Tensor, frames: int
) -> Tensor:
    """Blocks over the tokens that are left of each clip: only those go through norms, projections and MLPs.

    A patch attends over time to those that are left of its place, over space to those that are left of its frame.

    Args:
        values: (clips, n, width), the class token first.
        valid: bool (clips, n - 1): the patches that are there; None where all are.
        places: int64 (clips, n - 1): where a patch was among all, place by place and frame by frame within a place.
    """
    there = torch.ones_like(places, dtype=torch.bool) if valid is None else valid
    which = there.flatten().nonzero().flatten()
    clip = which // max(1, there.shape[1])
    place = places.flatten()[which]
    over_time = _Rows.of(clip * _MORE_THAN_PLACES + place // frames)
    over_space = _Rows.of(clip * frames + place % frames, len(values) * frames)
    patches, classes = values[:, 1:].flatten(0, 1)[which], values[:, 0]
    for block in blocks:
        patches, classes = _block(block.layer, patches, classes, over_time, over_space, frames)
    left = values.new_zeros(there.numel(), values.shape[2]).index_copy(0, which, patches.to(values.dtype))
    return torch.cat([classes[:, None].to(values.dtype), left.view(*there.shape, left.shape[1])], dim=1)


class _Rows:
    """Tokens by the row that they attend in: `row` and `column` of each, and which columns of a row are filled."""

    def __init__(self, row: Tensor, rows: int) -> None:
        counts = torch.bincount(row, minlength=rows)
        order = row.argsort(stable=True)
        first = counts.cumsum(0) - counts
        self.row, self.column = row, torch.empty_like(row)
        self.column[order] = torch.arange(len(row), device=row.device) - first[row[order]]
        self.longest = int(counts.max()) if rows else 0
        self.filled = torch.arange(self.longest, device=row.device) < counts[:, None]

    @classmethod
    def of(cls, keys: Tensor, rows: int | None = None) -> _Rows:
        """Rows by their number, or, without a count of rows, one for each key that there is."""
        if rows is not None:
            return cls(keys, rows)
        found, row = keys.unique(return_inverse=True)
        return cls(row, len(found))

    def spread(self, packed: Tensor) -> Tensor:
        """(tokens, width) to (rows, longest, width), zeros where no token is."""
        wide = packed.new_zeros(self.filled.numel(), packed.shape[1])
        places = self.row * self.longest + self.column
        return wide.index_copy(0, places, packed).view(*self.filled.shape, packed.shape[1])

    def packed(self, wide: Tensor) -> Tensor:
        """What `spread` spread."""
        return wide[self.row, self.column]


def _block(
    layer: Any, patches: Tensor, classes: Tensor, over_time: _Rows, over_space: _Rows, frames: int
) -> tuple[Tensor, Tensor]:
    """One layer over packed patches, (tokens, width), and class tokens, (clips, width)."""
    clips = len(classes)
    every = torch.arange(clips, device=classes.device)
    clip = over_space.row // frames
    temporal = layer.temporal_attention.attention
    # Without patches too: of no tokens, the gradient of these weights is zero, which is not none. Ranks wait for it.
    qkv = temporal.qkv(layer.temporal_layernorm(patches))
    attended = qkv[:, : classes.shape[1]]
    if len(patches):
        attended = over_time.packed(_attend(temporal, over_time.spread(qkv), over_time.filled))
    timed = by_image(layer.drop_path, layer.temporal_attention.output(attended), clip, clips)
    patches = patches + layer.temporal_dense(timed)
    attention = layer.attention.attention
    qkv = over_space.spread(attention.qkv(layer.layernorm_before(patches)))
    # The class token is in every frame the same: it is projected once, and its answers are averaged.
    own = attention.qkv(layer.layernorm_before(classes)).repeat_interleave(frames, 0)[:, None]
    filled = functional.pad(over_space.filled, (1, 0), value=True)
    found = _attend(attention, torch.cat([own, qkv], dim=1), filled)
    spatial = layer.attention.output(over_space.packed(found[:, 1:]))
    asked = layer.attention.output(found[:, 0].view(clips, frames, -1).mean(1))
    of = torch.cat([every, clip])
    values = torch.cat([classes, patches])
    values = values + by_image(layer.drop_path, torch.cat([asked, spatial]), of, clips)
    out = values + by_image(layer.drop_path, layer.output(layer.intermediate(layer.layernorm_after(values))), of, clips)
    return out[len(classes) :], out[: len(classes)]


def _attend(attention: Any, qkv: Tensor, filled: Tensor) -> Tensor:
    """Queries, keys and values, (rows, tokens, 3 x width), to (rows, tokens, width); each attends within its row."""
    rows, tokens, _ = qkv.shape
    query, key, value = qkv.view(rows, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=filled[:, None, None, :])
    return found.transpose(1, 2).reshape(rows, tokens, -1)
