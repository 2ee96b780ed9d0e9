"""IA-RED2's multi-head interpreter: how much each patch has to say, asked by the class token."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.tokens.asking import asked
from repro.tokens.dropping import Decision, Dropper, outside_autocast

_EDGE = 1e-6  # of a probability, so that its logarithm is a number


class Interpreter(Dropper):
    """Scores I_i = mean over heads j of sigmoid(q_j . k_ij / sqrt(d)), and keeps the patches with I_i > threshold.

    q comes from the layer-normed class token (the policy token), k from the layer-normed patches; d is the width of a
    head. Source: IA-RED2 (Pan et al., NeurIPS 2021), section 3.

    Attributes:
        is_sampling: each patch is kept with probability I_i, and the thresholded choice goes along as the second one;
            `log_probability` (images,) is then that of the sampled choice, and `shares` (2, images) are the shares of
            all patches that both choices keep.

    Args:
        width: of a token.
        heads: of the interpreter; divides `width`.
        patches: of an image, before anything is dropped.
        initial_logit: q.k/sqrt(d) of every patch at first, but for what is drawn: above 0 most patches are kept.
    """

    def __init__(self, width: int, heads: int, patches: int, threshold: float, initial_logit: float) -> None:
        super().__init__()
        self.heads, self.patches, self.threshold = heads, patches, threshold
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        head = width // heads
        for linear in (self.query, self.key):
            nn.init.trunc_normal_(linear.weight, std=width**-0.5)
            # d equal products of two biases b add up to b^2 d, over sqrt(d).
            nn.init.constant_(linear.bias, math.sqrt(abs(initial_logit) / math.sqrt(head)))
        if initial_logit < 0:
            nn.init.constant_(self.key.bias, -float(self.key.bias[0].detach()))
        self.is_sampling = False
        self.log_probability: Tensor | None = None
        self.shares: Tensor | None = None
        self.forced: Callable[[int, torch.device], Tensor] | None = None

    def scores(self, values: Tensor) -> Tensor:
        """(images, 1 + patches, width) to float32 (images, patches) in (0, 1)."""
        with outside_autocast(values):
            normed = self.norm(values.to(self.key.weight.dtype))  # a stream may be of half precision
            query = self.query(normed[:, 0]).view(
                normed.shape[0], self.heads, -1
            )  # of any number: a graph keeps it free
            logits = asked(query, self.key.weight, self.key.bias, normed[:, 1:])
        return torch.sigmoid(logits).mean(-1)

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """The thresholded choice, a sampled one before it, or a forced one."""
        scores = self.scores(values)
        if self.forced is not None:
            return Decision(keep_best(scores, valid, self.forced(len(scores), scores.device)), scores)
        keep = scores > self.threshold
        if not self.is_sampling:
            return Decision(keep, scores)
        sampled = torch.rand(scores.shape, device=scores.device) < scores.detach()
        self.log_probability = log_probability(scores, sampled, valid)
        both = torch.stack([sampled & valid, keep & valid])
        self.shares = both.sum(2).float() / self.patches
        return Decision(sampled, scores, keep)

    def force(self, keep_rate: float, spread: float) -> None:
        """Keep about this share of all patches whatever is learnt, so that an untrained model costs what it will."""
        counts = functools.partial(forced_counts, patches=self.patches, keep_rate=keep_rate, spread=spread)
        self.forced = functools.cache(counts)  # a learned choice has none to work out: no forward pass should


def log_probability(probabilities: Tensor, chosen: Tensor, valid: Tensor) -> Tensor:
    """The logarithm of the probability of a choice of patches, each kept on its own: (images,).

    Args:
        probabilities: (images, patches), of being kept.
        chosen: bool (images, patches).
        valid: bool (images, patches): the others are not chosen about.
    """
    safe = probabilities.clamp(_EDGE, 1 - _EDGE)
    each = torch.where(chosen, safe.log(), torch.log1p(-safe))
    return each.masked_fill(~valid, 0.0).sum(1)


def forced_counts(images: int, device: torch.device, *, patches: int, keep_rate: float, spread: float) -> Tensor:
    """How many patches each image of a batch keeps by a keep rate, int64 (images,).

    Image i of n keeps `keep_rate * patches * (1 + spread * z_i)` of its patches, z spread evenly over [-1, 1] in an
    order that has nothing to do with the images'; one at least.
    """
    even = (torch.arange(images, device=device) * _COPRIME % images + 0.5) / images * 2 - 1
    return (keep_rate * patches * (1 + spread * even)).round().clamp(min=1).long()


def keep_best(scores: Tensor, valid: Tensor, counts: Tensor) -> Tensor:
    """The patches of highest score, as many as `counts` (images,) says and never more than are there.

    bool (images, patches), as `valid` is: the patches that are there.
    """
    order = scores.masked_fill(~valid, -1.0).argsort(dim=1, descending=True, stable=True)
    most = torch.minimum(counts, valid.sum(1))[:, None]
    is_among = torch.arange(order.shape[1], device=order.device) < most
    return torch.empty_like(valid).scatter_(1, order, is_among)


_COPRIME = 7919  # a prime: its multiples go round a batch of any smaller size in a scattered order
