"""Dropped tokens leave: however the rest runs, it says what it would say with the dropped ones merely hidden."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import small_config
from torch import Tensor, nn

from repro.models.backbone import build_model
from repro.models.token_dropping import Decision, Dropper, DroppingBlocks, attach_droppers, tracing
from repro.models.token_execution import EXECUTIONS, gather, take

PATCHES = 16


class Given(Dropper):
    """Keeps what a table of the images' own patches says, wherever those patches are by now."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep
        self.places: Tensor | None = None

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        # The patch embedding is marked with its own number by `marked`.
        numbers = values[:, 1:, 0].round().long().clamp(0, PATCHES - 1)
        keep = self.keep.gather(1, numbers)
        return Decision(keep, keep.float())


class Marked(nn.Module):
    """Embeds nothing: the first channel of patch i is i, so that a dropper can tell patches apart after gathering."""

    def forward(self, values: Tensor) -> Tensor:
        marked = values.clone()
        marked[:, 1:, 0] = torch.arange(PATCHES, dtype=values.dtype)
        return marked


def model_of(execution: str, keep: list[Tensor], depth: int = 3) -> nn.Module:
    model: Any = build_model(small_config(f"model.depth={depth}", "method=dense").model, 0.0, 3)
    with torch.no_grad():  # weights that say something, and a first channel that blocks leave alone
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(6)
            if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                weight[0] = 0
    model.norm_pre = Marked()
    attach_droppers(model, [Given(each) for each in keep], PATCHES, execution)
    return model.eval()  # type: ignore[no-any-return]


masks = st.lists(st.lists(st.booleans(), min_size=PATCHES, max_size=PATCHES), min_size=5, max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(masks, min_size=1, max_size=3), st.integers(0, 99))
def test_gathered_and_masked_logits_are_the_same(stages: list[list[list[bool]]], seed: int) -> None:
    keep = [torch.tensor(stage) for stage in stages]
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        hidden = model_of("masked", keep)(images)
        for execution in EXECUTIONS:
            gathered = model_of(execution, keep)(images)
            assert float((gathered - hidden).abs().max()) < 1e-4, execution
        # And as each image says on its own, without a batch around it.
        for index in range(5):
            alone = model_of("padded", [each[index : index + 1] for each in keep])(images[index : index + 1])
            assert float((alone - hidden[index]).abs().max()) < 1e-4


def test_what_is_dropped_is_out_of_it() -> None:
    """Another picture in the dropped patches changes nothing; in a kept one it does."""
    keep = torch.ones(1, PATCHES, dtype=torch.bool)
    keep[0, 5] = False
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[0, 0, 2:4, 2:4] += 1  # patch 5 of 4 x 4, two pixels a side
    with torch.inference_mode():
        for execution in ("masked", *EXECUTIONS):
            assert torch.equal(model_of(execution, [keep])(image), model_of(execution, [keep])(other))
            every = torch.ones_like(keep)
            assert not torch.equal(model_of(execution, [every])(image), model_of(execution, [every])(other))


def test_dropped_patches_never_come_back_and_are_traced_by_their_places() -> None:
    first = torch.zeros(2, PATCHES, dtype=torch.bool)
    first[0, [1, 5, 9]] = True
    first[1, [2, 3, 4, 15]] = True
    second = torch.ones(2, PATCHES, dtype=torch.bool)
    second[0, 5] = second[1, 15] = False
    for execution in ("masked", *EXECUTIONS):
        model = model_of(execution, [first, second])
        with torch.inference_mode(), tracing(model) as traces:
            model(torch.randn(2, 1, 8, 8))
        assert torch.equal(traces[0].kept, first)
        assert torch.equal(traces[1].kept, first & second)
        assert torch.equal(traces[1].scores.isnan(), ~first)
        assert torch.equal(traces[1].scores.nan_to_num() > 0, first & second)


def test_gather_keeps_the_order_and_pads_to_the_longest() -> None:
    values = torch.arange(2 * 5.0).view(2, 5, 1)
    keep = torch.tensor([[False, True, False, True], [True, False, False, False]])
    found, valid, places = gather(values, keep)
    assert found[0, :, 0].tolist() == [0, 2, 4]
    assert found[1, :2, 0].tolist() == [5, 6]
    assert valid is not None
    assert valid.tolist() == [[True, True], [True, False]]
    assert places[0].tolist() == [1, 3]
    assert places[1, 0] == 0
    assert gather(values, keep.roll(1, 1) & keep)[0].shape == (2, 1, 1), "nothing is left but the class token"
    same = torch.tensor([[True, False, False, True], [False, True, True, False]])
    assert gather(values, same)[1] is None, "images of one length need no mask"


def test_taken_are_the_class_token_and_the_patches_of_each_image() -> None:
    values = torch.arange(2 * 5 * 3.0).view(2, 5, 3).requires_grad_()
    taken = take(values, torch.tensor([[3, 0], [1, 2]]))
    assert torch.equal(taken, torch.stack([values[0, [0, 4, 1]], values[1, [0, 2, 3]]]))
    taken.sum().backward()
    assert values.grad is not None
    assert values.grad[..., 0].tolist() == [[1, 1, 0, 0, 1], [1, 0, 1, 1, 0]]
    assert take(values.detach()[:, ::2], torch.tensor([[1], [0]]))[:, 1, 0].tolist() == [12, 21], "a view of other rows"
    assert take(values.detach(), torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 1, 3)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_gradients_go_through_what_is_gathered(execution: str) -> None:
    torch.manual_seed(0)
    keep = [torch.rand(5, PATCHES) < 0.5]
    images = torch.randn(5, 1, 8, 8)
    gradients = []
    for each in ("masked", execution):
        model = model_of(each, keep)
        model(images).square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for hidden, gathered in zip(*gradients, strict=True):
        torch.testing.assert_close(gathered, hidden, rtol=1e-3, atol=1e-4)


def test_keep_rates_are_counted_over_batches_in_evaluation_only() -> None:
    keep = torch.zeros(2, PATCHES, dtype=torch.bool)
    keep[0, :4] = True
    keep[1, :8] = True
    model = model_of("packed", [keep])
    blocks = model.blocks
    assert isinstance(blocks, DroppingBlocks)
    with torch.inference_mode():
        model(torch.randn(2, 1, 8, 8))
        assert blocks.image_count == 0, "nobody has asked"
        blocks.reset_counts()
        for _ in range(3):
            model(torch.randn(2, 1, 8, 8))
        model.train()(torch.randn(2, 1, 8, 8))
    assert blocks.image_count == 6
    assert blocks.keep_rate_sums.tolist() == [[pytest.approx(3 * 0.75), pytest.approx(3 * (1 / 16 + 1 / 4))]]


@pytest.mark.parametrize("execution", ["packed", "padded"])
def test_a_path_is_dropped_for_whole_images(execution: str) -> None:
    """With the same draws, packed tokens take the paths of padded ones: all of an image's, or none."""
    keep = torch.rand(5, PATCHES, generator=torch.Generator().manual_seed(4)) < torch.linspace(0.2, 0.9, 5)[:, None]
    model: Any = build_model(small_config("model.depth=3", "method=dense").model, 0.6, 3)
    model.norm_pre = Marked()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
                weight[0] = 0
    attach_droppers(model, [Given(keep)], PATCHES, execution)
    model.train()
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(9)
    found = model(images)
    model.blocks.execution = "masked"
    torch.manual_seed(9)
    torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-5)
    model.eval()
    assert not torch.allclose(found, model(images), atol=1e-4), "a path was dropped"


def test_executions_agree_in_bfloat16_as_far_as_it_goes() -> None:
    keep = torch.rand(5, PATCHES, generator=torch.Generator().manual_seed(4)) < torch.linspace(0.2, 0.9, 5)[:, None]
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = model_of("masked", [keep])(images)
        for execution in (*EXECUTIONS, "masked"):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = model_of(execution, [keep])(images).float()
            assert (found - exact).abs().max() < 0.05 * exact.abs().max()  # 8 bits through three blocks
