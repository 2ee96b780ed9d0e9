"""Published weights: timm's, at the published size, and one line where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from small_runs import same

from repro.config.compose import compose
from repro.counting.geometry import Geometry
from repro.errors import UserError
from repro.models.backbone import build_model
from repro.models.pretrained import published_model

CONFIG = compose(["backbone=deit_tiny", "scale=paper", "data.root=x"])


def published_of(geometry: Geometry) -> dict[str, torch.Tensor]:
    model = published_model("deit_tiny_patch16_224", geometry, CONFIG.backbone.paper, "OPTION", "ALTERNATIVE")
    return dict(model.state_dict())


def test_they_are_taken_from_timms_cache_and_fit_our_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm reads a file of weights as it would read its cache's."""
    published = build_model(CONFIG.model, 0.0, 7).state_dict()
    torch.save(published, tmp_path / "weights.pth")
    create = timm.create_model

    def from_file(name: str, pretrained: bool) -> torch.nn.Module:
        assert pretrained
        return create(name, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "weights.pth")})

    monkeypatch.setattr(timm, "create_model", from_file)
    found = published_of(CONFIG.model)
    assert same(found, dict(published))
    build_model(CONFIG.model, 0.0, 0).load_state_dict(found)


def test_a_small_model_has_none() -> None:
    with pytest.raises(UserError, match=r"^OPTION: .* is published at its paper size only; .*, or ALTERNATIVE$"):
        published_of(CONFIG.backbone.local)


def test_no_cache_and_no_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, pretrained: bool) -> torch.nn.Module:
        raise OSError("cannot reach the hub\nand a long story")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"weights of deit_tiny_patch16_224 \(cannot reach the hub\)") as raised:
        published_of(CONFIG.model)
    assert "\n" not in str(raised.value)
