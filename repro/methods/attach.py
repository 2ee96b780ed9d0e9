"""Attaches the parts of a method to a model. Needs no config, so that benchmarks can build parts from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from repro.class_names import load_class
from repro.methods.base import MethodPart


def attach(arguments: Sequence[tuple[str, Mapping[str, Any]]], model: nn.Module) -> list[MethodPart]:
    """Build parts from their classes and arguments, and attach them to `model` in order.

    Raises `UserError` for a class that does not exist or is not a `MethodPart`.
    """
    return [load_class(target, MethodPart)(model, **options) for target, options in arguments]  # type: ignore[call-arg]
