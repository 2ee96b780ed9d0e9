"""What makes a row's model physically smaller than its reference's, or why nothing does. Imports no torch."""

from __future__ import annotations

from repro.config import Method, Part
from repro.sparsity.budgets import NEURON

REFERENCE = "the reference that others are timed against"
BY_TRAINING = "training decides which heads and neurons leave: repro export times the finished model"
NO_SHAPE = "single weights removed by masks change no shape; repro export measures kernels"


def faster_by(method: Method) -> str:
    """`heads and neurons removed`, `tokens dropped`, or both; empty where a fresh model has the dense one's shape."""
    reasons = []
    if method.weights is not None and method.weights.heads_density is not None:
        reasons.append("heads and neurons removed")
    if method.tokens is not None:
        reasons.append(_by_tokens(method.tokens))
    return ", ".join(reasons)


def why_untimed(method: Method) -> str:
    """Why a row has no time of its own; empty where it can have one."""
    if faster_by(method):
        return ""
    if method.weights is None:
        return REFERENCE
    return BY_TRAINING if method.weights.block == NEURON else NO_SHAPE


def _by_tokens(tokens: Part) -> str:
    if tokens.rank is not None:
        return f"keys and values of {tokens.rank} mixtures of tokens"
    if tokens.keep_rates:
        rates = ", ".join(f"{100 * rate:.0f}" for rate in tokens.keep_rates)
        return f"tokens dropped, {rates} % of the patches left as planned"
    return "tokens dropped"
