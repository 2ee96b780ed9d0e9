"""The multi-head interpreter of IA-RED2, which scores patches by a query of the class token."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.methods.tokens.class_token_scores import class_token_logits
from repro.models.token_dropping import Decision, Dropper, keep_best, outside_autocast

_EPSILON = 1e-6  # distance of a probability from 0 and 1, so that its logarithm is finite


class Interpreter(Dropper):
    """Keeps patches with I_i > threshold, where I_i is the mean over heads j of sigmoid(q_j . k_ij / sqrt(d)).

    q is computed from the layer-normalized class token (the policy token), k from the layer-normalized patches; d is
    the width of a head. Source: IA-RED2 (Pan et al., NeurIPS 2021), section 3.

    Attributes:
        is_sampling: whether to keep each patch with probability I_i, with the thresholded selection as the second one.
            `log_probability`, (images,), is then that of the sampled selection, and `kept_shares`, (2, images), are the
            shares of all patches that each selection keeps.

    Args:
        width: width of a token.
        heads: heads of the interpreter; must divide `width`.
        patches: patches of an image before any is dropped.
        initial_logit: expected initial q.k/sqrt(d) of every patch; above 0, most patches are kept.
    """

    def __init__(self, width: int, heads: int, patches: int, threshold: float, initial_logit: float) -> None:
        super().__init__()
        self.heads, self.patches, self.threshold = heads, patches, threshold
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        head_width = width // heads
        for linear in (self.query, self.key):
            nn.init.trunc_normal_(linear.weight, std=width**-0.5)
            # With equal biases b, q.k/sqrt(d) is b^2 d / sqrt(d).
            nn.init.constant_(linear.bias, math.sqrt(abs(initial_logit) / math.sqrt(head_width)))
        if initial_logit < 0:
            nn.init.constant_(self.key.bias, -float(self.key.bias[0].detach()))
        self.is_sampling = False
        self.log_probability: Tensor | None = None
        self.kept_shares: Tensor | None = None
        self.forced_counts: Callable[[int, torch.device], Tensor] | None = None

    def scores(self, values: Tensor) -> Tensor:
        """Score patches in (0, 1): (images, 1 + patches, width) to float32 (images, patches)."""
        with outside_autocast(values):
            normed = self.norm(values.to(self.key.weight.dtype))  # tokens may be in half precision
            # `shape` instead of `len`, so that an exported graph keeps the number of images dynamic.
            query = self.query(normed[:, 0]).view(normed.shape[0], self.heads, -1)
            logits = class_token_logits(query, self.key.weight, self.key.bias, normed[:, 1:])
        return torch.sigmoid(logits).mean(-1)

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        """Select patches by threshold, by sampling (with the threshold as second selection), or by a forced count."""
        scores = self.scores(values)
        if self.forced_counts is not None:
            counts = self.forced_counts(len(scores), scores.device)
            return Decision(keep_best(scores, valid, counts[:, None]), scores)
        keep = scores > self.threshold
        if not self.is_sampling:
            return Decision(keep, scores)
        sampled = torch.rand(scores.shape, device=scores.device) < scores.detach()
        self.log_probability = log_probability(scores, sampled, valid)
        both = torch.stack([sampled & valid, keep & valid])
        self.kept_shares = both.sum(2).float() / self.patches
        return Decision(sampled, scores, keep)

    def force_keep_rate(self, keep_rate: float, spread: float) -> None:
        """Keep about this share of all patches, regardless of scores, so that an untrained model has a planned cost."""
        counts = functools.partial(forced_counts, patches=self.patches, keep_rate=keep_rate, spread=spread)
        # Cached, so that timings are comparable to a trained interpreter, which computes no counts.
        self.forced_counts = functools.cache(counts)


def log_probability(probabilities: Tensor, selected: Tensor, valid: Tensor) -> Tensor:
    """Return the log-probability of a selection of independent patches, (images,).

    Args:
        probabilities: (images, patches), of keeping each patch.
        selected: bool (images, patches).
        valid: bool (images, patches): patches that exist; others do not count.
    """
    safe = probabilities.clamp(_EPSILON, 1 - _EPSILON)
    log_probabilities = torch.where(selected, safe.log(), torch.log1p(-safe))
    return log_probabilities.masked_fill(~valid, 0.0).sum(1)


def forced_counts(images: int, device: torch.device, *, patches: int, keep_rate: float, spread: float) -> Tensor:
    """Return how many patches each image of a batch keeps, int64 (images,).

    Image i keeps `keep_rate * patches * (1 + spread * z_i)` patches, at least one, with z evenly spaced over [-1, 1] in
    a scattered order.
    """
    even = (torch.arange(images, device=device) * _COPRIME % images + 0.5) / images * 2 - 1
    return (keep_rate * patches * (1 + spread * even)).round().clamp(min=1).long()


_COPRIME = 7919  # a prime, so that its multiples visit all images of a smaller batch in a scattered order
