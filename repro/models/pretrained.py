"""Published weights, from timm's cache or its hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from repro.counting.geometry import Geometry
from repro.errors import UserError, first_line


def pretrained_weights(timm_name: str, model: Geometry, paper: Geometry) -> dict[str, Tensor]:
    """Return timm's state dict of a backbone at its published size, as initial weights.

    Raises `UserError` for a model of another size, or if the weights are not available.
    """
    return published(timm_name, model, paper, "method.starts_from=pretrained", "use method.starts_from=dense").weights


@dataclass(frozen=True)
class Published:
    """Published weights, and the preprocessing of images that they expect (timm's `pretrained_cfg`)."""

    weights: dict[str, Tensor]
    config: Mapping[str, Any]


def published(timm_name: str, model: Geometry, paper: Geometry, option: str, alternative: str) -> Published:
    """Load timm's weights of a backbone at its published size, from its cache or its hub.

    Raises `UserError` for a model of another size, or if the weights are not available. The message names the `option`
    that needs them, and the `alternative`.
    """
    if not timm_name:
        raise UserError(f"{option}: timm has no such backbone, so there are no published weights; {alternative}")
    if model != paper:
        raise UserError(
            f"{option}: {timm_name} is published at its paper size only; use scale=paper unchanged, or {alternative}"
        )
    try:
        backbone = timm.create_model(timm_name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{option}: timm cannot load the weights of {timm_name} ({first_line(error)}); put them into its "
            f"cache on a machine with access to the hub, or {alternative}"
        ) from None
    return Published(dict(backbone.state_dict()), dict(backbone.pretrained_cfg))
