from __future__ import annotations

import pytest
import torch
from timm.layers import set_fused_attn
from torch import Tensor

from repro.counting.geometry import ResNet, ViT
from repro.errors import UserError
from repro.evaluation.interpretation.attention import attention_maps
from repro.evaluation.interpretation.heat_maps import class_attention, rollout, score_map, to_pixels
from repro.methods.tokens.svite_plus import InputTokenSelector
from repro.models.backbone import build_model
from repro.models.token_dropping import Decision, Dropper, Trace, attach_droppers, tracing

TINY = ViT(
    architecture="vit",
    embed_dim=16,
    depth=3,
    num_heads=2,
    mlp_ratio=2,
    patch_size=4,
    image_size=16,
    in_chans=3,
    num_classes=4,
    weight_init="jax",
)
NAN = float("nan")


class KeepPatches(Dropper):
    """Keeps the patches with these indices; the score of a patch is its index."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        self.places = places

    def forward(self, values: Tensor, valid: Tensor, block: object) -> Decision:
        keep = torch.zeros_like(valid)
        keep[:, list(self.places)] = True
        return Decision(keep, torch.arange(valid.shape[1]).float().expand(len(valid), -1))


@torch.no_grad()
def maps_of(model: torch.nn.Module, image: Tensor) -> tuple[list[Tensor], list[Trace]]:
    model.eval()
    with tracing(model) as traces, attention_maps(model, TINY.patches, traces) as maps:
        model(image)
    return maps, traces


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_maps_are_the_attention_weights_of_the_model(image: Tensor) -> None:
    set_fused_attn(False)
    try:
        model = build_model(TINY, 0.0, 0)
    finally:
        set_fused_attn(True)
    used: list[Tensor] = []
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, output: used.append(inputs[0][0].mean(0)))
    maps, traces = maps_of(model, image)
    assert traces == []
    assert len(maps) == 3
    for ours, timms in zip(maps, used, strict=True):
        torch.testing.assert_close(ours, timms)


def test_maps_are_zero_for_dropped_patches(image: Tensor) -> None:
    model = build_model(TINY, 0.0, 0)
    attach_droppers(model, [KeepPatches(1, 5, 6, 9), KeepPatches(0, 2)], TINY.patches, "packed")
    maps, traces = maps_of(model, image)
    assert [trace.kept[0].nonzero().flatten().tolist() for trace in traces] == [[1, 5, 6, 9], [1, 6]]
    seen = [attention[0, 1:].nonzero().flatten().tolist() for attention in maps]
    starts = model.blocks.starts  # type: ignore[union-attr]
    every = list(range(16))
    assert seen == [every if block < starts[0] else [1, 5, 6, 9] if block < starts[1] else [1, 6] for block in range(3)]
    for attention in maps:
        rows = attention.sum(1)
        assert torch.all((rows - 1).abs().lt(1e-5) | rows.eq(0))
    assert rollout(maps).sum() < 1
    assert class_attention(maps).nonzero().flatten().tolist() == [1, 6]


def test_dropped_patches_score_zero() -> None:
    stages = [
        Trace(torch.ones(1, 4) > 0, torch.tensor([[0.2, 0.4, 0.6, 0.8]])),
        Trace(torch.ones(1, 4) > 0, torch.tensor([[NAN, 0.1, 0.9, 0.5]])),
    ]
    torch.testing.assert_close(score_map(stages), torch.tensor([0.10, 0.25, 0.75, 0.65]))


def test_a_selector_at_the_input_is_traced_too(image: Tensor) -> None:
    model = build_model(TINY, 0.0, 0)
    options = {"selection": "gather", "temperature_start": 1.0, "temperature_end": 1.0, "updates": 1, "seed": 0}
    part = InputTokenSelector(model, tokens=17, kept=5, **options)  # type: ignore[arg-type]
    maps, traces = maps_of(model, image)
    (trace,) = traces
    best = trace.scores[0].topk(4).indices.sort().values
    assert trace.kept[0].nonzero().flatten().equal(best)
    assert class_attention(maps).nonzero().flatten().equal(best)
    assert part.selector.traces is None


def test_rollout_worked_by_hand() -> None:
    # Class token and two patches; the first block only copies, the second mixes the class token with patch 2.
    first = torch.eye(3)
    second = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(rollout([first, second]), torch.tensor([0.0, 0.5]))
    mixing = torch.full((3, 3), 1 / 3)
    # (M + I) / 2 twice: M M = M, so M / 4 + M / 4 + M / 4 + I / 4.
    torch.testing.assert_close(rollout([mixing, mixing]), torch.tensor([0.25, 0.25]))


def test_rollout_sums_to_one(image: Tensor) -> None:
    maps, _ = maps_of(build_model(TINY, 0.0, 0), image)
    whole = torch.eye(17)
    for attention in maps:
        whole = (attention + torch.eye(17)) / 2 @ whole
    assert rollout(maps).sum() + whole[0, 0] == pytest.approx(1, abs=1e-5)


def test_upsampling_interpolates_between_patches() -> None:
    pixels = to_pixels(torch.tensor([0.0, 1.0, 2.0, 3.0]), 4)
    assert pixels.shape == (4, 4)
    assert (pixels[0, 0], pixels[0, 3], pixels[3, 0], pixels[3, 3]) == (0, 1, 2, 3)
    assert pixels[0].tolist() == [0, 0.25, 0.75, 1]


def test_a_model_without_attention_is_refused() -> None:
    shape = {"blocks": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem": "small"}
    sizes = {"image_size": 8, "in_chans": 1, "num_classes": 2}
    model = build_model(ResNet(architecture="resnet", **shape, **sizes), 0.0, 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no attention between all tokens"), attention_maps(model, 4, []):
        pass
