"""Published weights, from timm's cache on this machine or the hub that timm knows."""

from __future__ import annotations

import timm
from torch import Tensor

from repro.errors import UserError
from repro.geometry import Geometry


def pretrained_weights(timm_name: str, model: Geometry, paper: Geometry) -> dict[str, Tensor]:
    """The state dict that timm has for a backbone at its published size.

    Raises `UserError` for a model of another size, or where the weights cannot be had.
    """
    if not timm_name:
        raise UserError(
            "method.starts_from=pretrained: timm has no such backbone, so no published weights are found; take "
            "method.starts_from=dense"
        )
    if model != paper:
        raise UserError(
            f"method.starts_from=pretrained: {timm_name} is published at its paper size only; take scale=paper, or "
            "method.starts_from=dense"
        )
    try:
        return dict(timm.create_model(timm_name, pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"method.starts_from=pretrained: timm cannot give the weights of {timm_name} ({first}); put them into its "
            "cache on a machine that reaches the hub, or take method.starts_from=dense"
        ) from None
