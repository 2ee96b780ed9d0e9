"""Published weights, from timm's cache on this machine or the hub that timm knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from repro.errors import UserError
from repro.geometry import Geometry


def pretrained_weights(timm_name: str, model: Geometry, paper: Geometry) -> dict[str, Tensor]:
    """The state dict that timm has for a backbone at its published size, to begin a training with.

    Raises `UserError` for a model of another size, or where the weights cannot be had.
    """
    return published(timm_name, model, paper, "method.starts_from=pretrained", "take method.starts_from=dense").weights


@dataclass(frozen=True)
class Published:
    """Weights as timm has them, and how timm says that images are prepared for them (`pretrained_cfg`)."""

    weights: dict[str, Tensor]
    config: Mapping[str, Any]


def published(timm_name: str, model: Geometry, paper: Geometry, asked: str, instead: str) -> Published:
    """timm's weights of a backbone at its published size, from its cache or the hub.

    Raises `UserError` for a model of another size, or where the weights cannot be had; `asked` is what asked for them,
    and `instead` what else can be done.
    """
    if not timm_name:
        raise UserError(f"{asked}: timm has no such backbone, so no published weights are found; {instead}")
    if model != paper:
        raise UserError(
            f"{asked}: {timm_name} is published at its paper size only; take scale=paper as it is, or {instead}"
        )
    try:
        made = timm.create_model(timm_name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{asked}: timm cannot give the weights of {timm_name} ({first}); put them into its "
            f"cache on a machine that reaches the hub, or {instead}"
        ) from None
    return Published(dict(made.state_dict()), dict(made.pretrained_cfg))
