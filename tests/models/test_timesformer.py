from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repro.counting.geometry import TimeSformer as Shape
from repro.models.backbone import build_model
from repro.models.token_dropping import Decision, Dropper, attach_droppers

transformers = pytest.importorskip("transformers")

SMALL = Shape(
    architecture="timesformer",
    frames=4,
    embed_dim=24,
    depth=2,
    num_heads=3,
    mlp_ratio=4,
    patch_size=4,
    image_size=12,
    in_chans=3,
    num_classes=5,
    weight_init="xavier",
)
BASE = SMALL.model_copy(
    update={"frames": 8, "embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16, "image_size": 224}
).model_copy(update={"num_classes": 400, "weight_init": ""})


class KeepThese(Dropper):
    """Keeps the patches of a mask, (clips, patches)."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, values: Tensor, valid: Tensor, block: object) -> Decision:
        return Decision(self.keep, self.keep.float())


@pytest.fixture
def model() -> Any:
    return build_model(SMALL, 0.0, 0).eval()


@pytest.fixture
def clips() -> Tensor:
    return torch.randn(3, *SMALL.input_shape, generator=torch.Generator().manual_seed(0))


def kept(model: Any, keep: Tensor, clips: Tensor, execution: str = "packed") -> Tensor:
    other = copy.deepcopy(model)
    attach_droppers(other, [KeepThese(keep)], SMALL.patches, execution)
    with torch.inference_mode():
        return other.eval()(clips)  # type: ignore[no-any-return]


def written_out(model: Any, keep: Tensor, clips: Tensor) -> Tensor:
    """The layers written out over all tokens, the dropped ones hidden from attention by masks."""
    (count, places, frames) = len(clips), SMALL.patches_per_frame, SMALL.frames

    def attend(attention: Any, values: Tensor, mask: Tensor) -> Tensor:
        rows, tokens, width = values.shape
        query, key, value = attention.attention.qkv(values).view(rows, tokens, 3, 3, -1).permute(2, 0, 3, 1, 4)
        scores = (query @ key.transpose(-1, -2) * attention.attention.scale).masked_fill(~mask[:, None, None], -1e9)
        return attention.output((scores.softmax(-1) @ value).transpose(1, 2).reshape(rows, tokens, width))  # type: ignore[no-any-return]

    values = model.embeddings(clips)
    for block in model.blocks:
        layer = block.layer
        cls, patches = values[:, 0], values[:, 1:].view(count, places, frames, -1)
        there = keep.view(count, places, frames)
        timed = attend(layer.temporal_attention, layer.temporal_layernorm(patches).flatten(0, 1), there.flatten(0, 1))
        patches = patches + layer.temporal_dense(timed).view_as(patches)
        per_frame = torch.cat([cls[:, None, None].expand(-1, frames, 1, -1), patches.transpose(1, 2)], dim=2).flatten(
            0, 1
        )
        mask = torch.nn.functional.pad(there.transpose(1, 2).flatten(0, 1), (1, 0), value=True)
        spatial = attend(layer.attention, layer.layernorm_before(per_frame), mask).view(count, frames, places + 1, -1)
        patches = (patches + spatial[:, :, 1:].transpose(1, 2)).flatten(1, 2)
        values = torch.cat([(cls + spatial[:, :, 0].mean(1))[:, None], patches], dim=1)
        values = values + layer.output(layer.intermediate(layer.layernorm_after(values)))
    return model.head(model.norm(values[:, 0]))  # type: ignore[no-any-return]


@torch.inference_mode()
def reference(model: Any, keep: Tensor, clips: Tensor) -> Tensor:
    return written_out(model, keep, clips)


def test_logits_are_those_of_the_transformers_package(model: Any, clips: Tensor) -> None:
    config = transformers.TimesformerConfig(
        image_size=12,
        patch_size=4,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=5,
    )
    theirs = transformers.TimesformerForVideoClassification(config).eval()
    theirs.timesformer.embeddings.load_state_dict(model.embeddings.state_dict())
    for layer, block in zip(theirs.timesformer.encoder.layer, model.blocks, strict=True):
        layer.load_state_dict(block.layer.state_dict())
    theirs.timesformer.layernorm.load_state_dict(model.norm.state_dict())
    theirs.classifier.load_state_dict(model.head.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(model(clips), theirs(clips).logits)


def test_a_dropper_that_drops_nothing_changes_nothing(model: Any, clips: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(kept(model, torch.ones(3, SMALL.patches) > 0, clips), model(clips))


@pytest.mark.parametrize("execution", ["packed", "padded", "grouped", "masked"])
def test_gathered_tokens_give_the_logits_of_masked_ones(model: Any, clips: Tensor, execution: str) -> None:
    keep = torch.rand(3, SMALL.patches, generator=torch.Generator().manual_seed(1)) < torch.tensor(
        [[0.2], [0.5], [0.9]]
    )
    keep[0, ::4] = False  # nothing is left of a frame
    keep[1, 4:8] = False  # nor of a place
    ours, written_out = kept(model, keep, clips, execution), reference(model, keep, clips)
    torch.testing.assert_close(ours, written_out, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        assert (ours - model(clips)).abs().max() > 1e-3


def test_a_clip_that_has_nothing_left_still_has_an_answer(model: Any, clips: Tensor) -> None:
    keep = torch.ones(3, SMALL.patches) > 0
    keep[1] = False
    found = kept(model, keep, clips)
    assert found.isfinite().all()
    torch.testing.assert_close(found[1], reference(model, keep, clips)[1], atol=1e-5, rtol=1e-5)
    assert kept(model, torch.zeros(3, SMALL.patches) > 0, clips).isfinite().all()


def test_gradients_reach_everything_through_gathered_tokens(clips: Tensor) -> None:
    model: Any = build_model(SMALL, 0.0, 0)
    keep = torch.rand(3, SMALL.patches, generator=torch.Generator().manual_seed(1)) < 0.5
    attach_droppers(model, [KeepThese(keep)], SMALL.patches, "packed")
    model(clips).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_under_mixed_precision_gathered_tokens_teach_what_masked_ones_do(model: Any, clips: Tensor) -> None:
    """bfloat16 has 8 bits, and two blocks round some twenty times: 2 % of the largest logit, 5 % of a gradient's norm.

    Both are held against masked attention in float32, and the masked one in bfloat16 keeps no tighter bound.
    """
    keep = torch.rand(3, SMALL.patches, generator=torch.Generator().manual_seed(1)) < torch.tensor(
        [[0.2], [0.5], [0.9]]
    )
    gathered = copy.deepcopy(model)
    attach_droppers(gathered, [KeepThese(keep)], SMALL.patches, "packed")
    found: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
    for name, amp, forward, of in (
        ("exact", False, lambda: written_out(model, keep, clips), model),
        ("masked", True, lambda: written_out(model, keep, clips), model),
        ("gathered", True, lambda: gathered(clips), gathered),
    ):
        of.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = forward()
        assert logits.dtype == (torch.bfloat16 if amp else torch.float32)
        torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2])).backward()
        gradients = {key: weight.grad.clone() for key, weight in of.named_parameters()}
        assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
        found[name] = logits.detach().float(), gradients
    exact_logits, exact = found["exact"]
    for name in ("masked", "gathered"):
        logits, gradients = found[name]
        assert (logits - exact_logits).abs().max() < 0.02 * exact_logits.abs().max(), name
        assert gradients.keys() == exact.keys()
        for key, gradient in gradients.items():
            if float(exact[key].norm()) < 1e-6:  # of a key's bias: no softmax changes by it
                continue
            assert (gradient - exact[key]).norm() < 0.05 * exact[key].norm(), (name, key)


@pytest.mark.parametrize("of", ["some", "all"])
def test_clips_without_patches_give_every_weight_a_gradient(clips: Tensor, of: str) -> None:
    """Zero where nothing was left, and not none: ranks wait for each other's."""
    model: Any = build_model(SMALL, 0.0, 0)
    keep = torch.zeros(3, SMALL.patches) > 0
    keep[0] = of == "some"
    attach_droppers(model, [KeepThese(keep)], SMALL.patches, "packed")
    model(clips).sum().backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert missing == []
    temporal = model.blocks[0].layer.temporal_dense.weight.grad
    assert bool(temporal.any()) == (of == "some")


def test_a_path_is_dropped_for_whole_clips(clips: Tensor) -> None:
    model: Any = build_model(SMALL, 0.5, 0)
    keep = torch.rand(3, SMALL.patches, generator=torch.Generator().manual_seed(1)) < 0.6
    seen: list[Tensor] = []
    model.blocks[1].layer.drop_path.register_forward_hook(lambda *call: seen.append(call[2]))
    attach_droppers(model, [KeepThese(keep)], SMALL.patches, "packed")
    torch.manual_seed(0)
    model.train()(clips)
    assert [drawn.shape for drawn in seen] == [(3, 1)] * 3  # over time, over space, and the MLP's
    assert {value for drawn in seen for value in drawn.flatten().tolist()} == {0.0, 2.0}


def test_several_views_are_averaged_as_probabilities(model: Any, clips: Tensor) -> None:
    with torch.inference_mode():
        views = torch.stack([clips, clips.flip(-1), clips.flip(-2)], dim=1)
        mean = torch.stack([model(views[:, view]).softmax(-1) for view in range(3)]).mean(0)
        torch.testing.assert_close(model(views).exp(), mean)


@pytest.mark.parametrize("shape", [SMALL, SMALL.model_copy(update={"frames": 3, "depth": 1, "image_size": 16})])
def test_counts_are_those_of_the_model(shape: Shape) -> None:
    model = build_model(shape, 0.0, 0).eval()
    counted = shape.dense_model()
    assert counted.params == sum(weight.numel() for weight in model.parameters())
    weights = dict(model.named_parameters())
    for layer in counted.layers:
        assert tuple(weights[f"{layer.name}.weight"].shape) == layer.shape
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, *shape.input_shape))
    assert 2 * counted.macs == counter.get_total_flops()


def test_the_published_size() -> None:
    # 121.4 M parameters and 0.59 TFLOPs over three views: table 2 of the TimeSformer paper.
    counted = BASE.dense_model()
    assert counted.params / 1e6 == pytest.approx(121.4, abs=0.2)
    assert 3 * counted.macs / 1e12 == pytest.approx(0.59, abs=0.005)


def test_weights_are_a_function_of_the_seed() -> None:
    first, again, other = (build_model(SMALL, 0.0, seed).state_dict() for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["head.weight"].equal(other["head.weight"])
