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
    clips = len(values)
    there = torch.ones_like(places, dtype=torch.bool) if valid is None else valid
    which = there.flatten().nonzero().flatten()
    clip = which // max(1, there.shape[1])
    place = places.flatten()[which]
    every, over_place = (clip * _MORE_THAN_PLACES + place // frames).unique(return_inverse=True)
    over_time = _Rows(over_place, len(every))
    over_space = _Rows(clip * frames + place % frames, clips * frames, ahead=1)  # the class token is in every frame
    of = torch.cat([torch.arange(clips, device=clip.device), clip])
    # One tensor through all blocks, the clips' class tokens first: a layer of its own for few of them reads its
    # weights as a whole.
    tokens = torch.cat([values[:, 0], values[:, 1:].flatten(0, 1).index_select(0, which)])
    for block in blocks:
        tokens = _block(block.layer, tokens, of, clips, over_time, over_space)
    tokens = tokens.to(values.dtype)
    left = values.new_zeros(there.numel(), values.shape[2]).index_copy(0, which, tokens[clips:])
    return torch.cat([tokens[:clips, None], left.view(*there.shape, left.shape[1])], dim=1)


class _Rows:
    """Tokens by the row that they attend in: the places of each among those of all rows, and which of them are filled.

    Args:
        row: int64 (tokens,).
        ahead: columns of every row that are filled by others.
    """

    def __init__(self, row: Tensor, rows: int, ahead: int = 0) -> None:
        counts = torch.bincount(row, minlength=rows)
        order = row.argsort(stable=True)
        first = counts.cumsum(0) - counts
        column = torch.empty_like(row)
        column[order] = torch.arange(len(row), device=row.device) - first[row[order]]
        longest = ahead + (int(counts.max()) if rows else 0)
        self.shape = (rows, longest)
        self.places = row * longest + ahead + column
        self.filled = torch.arange(longest, device=row.device) < counts[:, None] + ahead

    def spread(self, packed: Tensor) -> Tensor:
        """(tokens, width) to (rows, longest, width), zeros where no token is."""
        rows, longest = self.shape
        wide = packed.new_zeros(rows * longest, packed.shape[1])
        return wide.index_copy(0, self.places, packed).view(rows, longest, packed.shape[1])

    def packed(self, wide: Tensor) -> Tensor:
        """What `spread` spread."""
        return wide.flatten(0, 1).index_select(0, self.places)


def _block(layer: Any, tokens: Tensor, of: Tensor, clips: int, over_time: _Rows, over_space: _Rows) -> Tensor:
    """One layer over packed tokens, (clips + patches, width), the class tokens first; `of`: the clip of each."""
    patches = tokens[clips:]
    temporal = layer.temporal_attention.attention
    # Without patches too: of no tokens, the gradient of these weights is zero, which is not none. Ranks wait for it.
    qkv = temporal.qkv(layer.temporal_layernorm(patches))
    attended = qkv[:, : tokens.shape[1]]
    if len(patches):
        attended = over_time.packed(_attend(temporal, over_time.spread(qkv), over_time.filled))
    timed = by_image(layer.drop_path, layer.temporal_attention.output(attended), of[clips:], clips)
    tokens = torch.cat([tokens[:clips], patches + layer.temporal_dense(timed)])
    attention = layer.attention.attention
    qkv = attention.qkv(layer.layernorm_before(tokens))
    wide = over_space.spread(qkv[clips:])
    # The class token is in every frame the same: it is projected once, and its answers are averaged.
    wide.view(clips, -1, *wide.shape[1:])[:, :, 0] = qkv[:clips, None]
    found = _attend(attention, wide, over_space.filled)
    asked = found[:, 0].view(clips, -1, found.shape[2]).mean(1)
    spatial = layer.attention.output(torch.cat([asked, over_space.packed(found)]))
    tokens = tokens + by_image(layer.drop_path, spatial, of, clips)
    expanded = layer.intermediate(layer.layernorm_after(tokens))
    return tokens + by_image(layer.drop_path, layer.output(expanded), of, clips)


def _attend(attention: Any, qkv: Tensor, filled: Tensor) -> Tensor:
    """Queries, keys and values, (rows, tokens, 3 x width), to (rows, tokens, width); each attends within its row."""
    rows, tokens, _ = qkv.shape
    query, key, value = qkv.view(rows, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=filled[:, None, None, :])
    return found.transpose(1, 2).reshape(rows, tokens, -1)
