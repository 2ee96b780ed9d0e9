"""Published weights, from timm's cache or its hub."""

from __future__ import annotations

from typing import Any

import timm

from repro.counting.geometry import Geometry
from repro.errors import UserError, first_line


def published_model(timm_name: str, model: Geometry, paper: Geometry, option: str, alternative: str) -> Any:
    """Return timm's model with its published weights, from its cache or its hub.

    Its `pretrained_cfg` describes the preprocessing of images that the weights expect. Raises `UserError` for a model
    of another size than the published one, or if the weights are not available. The message names the `option` that
    needs them, and the `alternative`.
    """
    if not timm_name:
        raise UserError(f"{option}: timm has no such backbone, so there are no published weights; {alternative}")
    if model != paper:
        raise UserError(
            f"{option}: {timm_name} is published at its paper size only; use scale=paper unchanged, or {alternative}"
        )
    try:
        return timm.create_model(timm_name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{option}: timm cannot load the weights of {timm_name} ({first_line(error)}); download them to "
            f"timm's cache on a machine with internet access, or {alternative}"
        ) from None
