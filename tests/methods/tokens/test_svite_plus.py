"""The token selector: how many, which, how it learns, and what evaluation does."""

from __future__ import annotations

import math

import pytest
import torch
from small_runs import small_config

from repro.config.compose import compose
from repro.config.costs import method_changes
from repro.methods.tokens.svite_plus import InputTokenSelector, TokenSelector
from repro.methods.weights.masks import prunable_weights
from repro.models.backbone import build_model


def tokens(images: int = 2, patches: int = 5, dim: int = 1) -> torch.Tensor:
    """Patch i of each image is i + 1 in every channel; the class token is -7."""
    ramp = torch.arange(1.0, patches + 1).view(1, patches, 1).expand(images, patches, dim)
    return torch.cat([torch.full((images, 1, dim), -7.0), ramp], dim=1)


def selector(kept: int, selection: str = "gather", temperature: float = 1.0) -> TokenSelector:
    made = TokenSelector(1, kept, selection, temperature)
    made.scorer.weight.data.fill_(1.0)  # a patch's score is its value
    return made


@pytest.mark.parametrize(("data_sparsity", "kept"), [(0.05, 187), (0.1, 177), (0.3, 138), (0.5, 99)])
@pytest.mark.parametrize("backbone", ["deit_tiny", "deit_small", "deit_base"])
def test_tokens_kept_of_197(backbone: str, data_sparsity: float, kept: int) -> None:
    config = compose(
        [f"backbone={backbone}", "method=svite_plus", f"method.data_sparsity={data_sparsity}", "scale=local"]
    )
    assert method_changes(config.backbone.paper, config.method).tokens == kept
    # The small backbone has 17 tokens and keeps the same fraction of them.
    assert method_changes(config.model, config.method).tokens == round(17 * kept / 197)


def test_evaluation_keeps_the_highest_in_their_order_and_is_deterministic() -> None:
    chosen = selector(3).eval()
    before = torch.get_rng_state()
    assert chosen(tokens(100))[..., 0].tolist() == [[-7, 4, 5]] * 100
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"


def test_the_class_token_stays_whatever_its_score_and_in_training_too() -> None:
    for mode in (True, False):
        made = selector(2).train(mode)
        assert made(tokens())[:, 0, 0].tolist() == [-7, -7]
        assert made(tokens()).shape == (2, 2, 1)


def test_training_samples_and_values_are_those_of_the_tokens() -> None:
    made = selector(3, temperature=5.0).train()
    torch.manual_seed(0)
    several = {tuple(made(tokens(1))[0, :, 0].tolist()) for _ in range(30)}
    assert len(several) > 1
    assert all(set(values) <= {-7, 1, 2, 3, 4, 5} for values in several)


@pytest.mark.parametrize("selection", ["gather", "as_released"])
def test_the_scorer_learns_through_the_soft_choice(selection: str) -> None:
    torch.manual_seed(0)
    made = selector(3, selection, temperature=5.0).train()
    made(tokens()).sum().backward()
    assert made.scorer.weight.grad is not None
    assert made.scorer.weight.grad.abs().sum() > 0


# In the two tests below the scores of a class token and three patches are 0, log 2, 0 (channel 0), and the noise's
# exponential draws 1, 1, 1/5: score + noise is log 1, log 2, log 5. Patches 2 and 3 are kept. The loss is the sum of
# channel 1, where the patches are 3, 4, 8: what d loss / d weight of each patch is.
# Temperature 1: softmax 1/8, 2/8, 5/8. Temperature 1/2: their squares, 1/30, 4/30, 25/30.
# d loss / d score i = softmax i / temperature * (u i - mean of u under the softmax); u is 0, 4, 8 where dropped tokens
# take no part, and 3, 4, 8 as released. The gradients of the scorer's weights are its sums with each channel:
#   gather,  1:   mean 6,     scores (-6/8, -4/8, 10/8):             log 2 * -1/2,    and  5.75
#   gather,  1/2: mean 7.2,   scores (-7.2, -12.8, 20) / 15:         log 2 * -12.8/15, and  87.2 / 15
#   released, 1:  mean 6.375, scores (-3.375, -4.75, 8.125) / 8:     log 2 * -4.75/8, and  35.875 / 8
#   released, 1/2: mean 7.3,  scores (-4.3, -13.2, 17.5) / 15:       log 2 * -13.2/15, and  74.3 / 15
def with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.tensor([[1.0, 1.0, 0.2]])
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda tensor: tensor.copy_(draws))


def scored(selection: str, temperature: float) -> tuple[TokenSelector, torch.Tensor]:
    made = TokenSelector(2, 3, selection, temperature)
    made.scorer.weight.data = torch.tensor([[1.0, 0.0]])
    image = torch.tensor([[[9.0, 9.0], [0.0, 3.0], [math.log(2), 4.0], [0.0, 8.0]]], requires_grad=True)
    return made.train(), image


@pytest.mark.parametrize(
    ("selection", "temperature", "of_scores", "of_values"),
    [
        ("gather", 1.0, -1 / 2, 5.75),
        ("gather", 0.5, -12.8 / 15, 87.2 / 15),
        ("as_released", 1.0, -4.75 / 8, 35.875 / 8),
        ("as_released", 0.5, -13.2 / 15, 74.3 / 15),
    ],
)
def test_the_gradient_of_the_scorer_by_hand(
    monkeypatch: pytest.MonkeyPatch, selection: str, temperature: float, of_scores: float, of_values: float
) -> None:
    with_noise(monkeypatch)
    made, image = scored(selection, temperature)
    out = made(image)
    kept = [9, 4, 8] if selection == "gather" else [9, 0, 4, 8]
    assert out[0, :, 1].tolist() == pytest.approx(kept)
    out[..., 1].sum().backward()
    assert made.scorer.weight.grad is not None
    assert made.scorer.weight.grad[0].tolist() == pytest.approx([math.log(2) * of_scores, of_values], rel=1e-5)
    assert image.grad is not None
    assert image.grad[0, :, 1].tolist() == pytest.approx([1, 0, 1, 1], abs=1e-6), "as if there were no soft choice"


@pytest.mark.parametrize("temperature", [0.3, 4.0])
@pytest.mark.parametrize("selection", ["gather", "as_released"])
def test_the_gradient_of_the_scorer_is_that_of_the_soft_choice(
    monkeypatch: pytest.MonkeyPatch, selection: str, temperature: float
) -> None:
    """Straight through: the gradient of the kept values weighted by softmax((score + noise) / temperature)."""
    with_noise(monkeypatch)
    made, image = scored(selection, temperature)
    made(image)[..., 1].sum().backward()
    weight = torch.tensor([1.0, 0.0], requires_grad=True)
    patches = image.detach()[0, 1:]
    soft = torch.softmax((patches @ weight + torch.tensor([0.0, 0.0, math.log(5)])) / temperature, 0)
    taking_part = torch.tensor([0.0 if selection == "gather" else 1.0, 1.0, 1.0])
    (soft * patches[:, 1] * taking_part).sum().backward()
    assert weight.grad is not None
    assert made.scorer.weight.grad is not None
    torch.testing.assert_close(made.scorer.weight.grad[0], weight.grad)


@pytest.mark.parametrize(("selection", "training"), [("gather", True), ("as_released", True), ("as_released", False)])
def test_tokens_are_sampled_as_gumbel_top_k_says(selection: str, training: bool) -> None:
    """Scores log 1, 2, 5, one of them kept: with 1/8, 2/8, 5/8. Two: draws one after the other, without putting back.

    {1, 2}: 1/8 * 2/7 + 2/8 * 1/6 = 13/168; {1, 3}: 1/8 * 5/7 + 5/8 * 1/3 = 25/84; {2, 3}: 2/8 * 5/6 + 5/8 * 2/3 = 5/8.
    The temperature is no part of it.
    """
    images = 20_000
    batch = torch.tensor([0.0, math.log(1), math.log(2), math.log(5)]).view(1, 4, 1).expand(images, 4, 1)
    batch = torch.cat([batch, torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1).expand(images, 4, 1)], dim=2)
    torch.manual_seed(0)
    for kept, expected in ((2, {1: 1 / 8, 2: 2 / 8, 3: 5 / 8}), (3, {3: 13 / 168, 4: 25 / 84, 5: 5 / 8})):
        made = TokenSelector(2, kept, selection, temperature=7.0).train(training)
        made.scorer.weight.data = torch.tensor([[1.0, 0.0]])
        with torch.no_grad():
            sums = made(batch)[..., 1].sum(1).round().int()
        # The sum of the kept patches' numbers says which they are. Five standard deviations of 20 000 draws: 0.017.
        found = {int(value): float((sums == value).float().mean()) for value in sums.unique()}
        assert found == pytest.approx(expected, abs=0.017)


def test_as_released_multiplies_by_zero_and_samples_in_evaluation() -> None:
    made = selector(3, "as_released").eval()
    torch.manual_seed(0)
    outs = [made(tokens(1))[0, :, 0].round(decimals=4).tolist() for _ in range(20)]
    assert all(len(out) == 6 for out in outs), "dropped tokens stay, as zeros"
    assert all(sum(value == 0 for value in out) == 3 for out in outs)
    assert len({tuple(out) for out in outs}) > 1


def test_keeping_all_tokens_keeps_them() -> None:
    assert torch.equal(selector(6).eval()(tokens()), tokens())


def test_the_temperature_falls_linearly_over_all_updates() -> None:
    config = small_config("method=dense")
    model = build_model(config.model, 0.0, 0)
    part = InputTokenSelector(
        model,
        **{"tokens": 17, "kept": 12, "selection": "gather", "updates": 100, "seed": 0},  # type: ignore[arg-type]
        temperature_start=10.0,
        temperature_end=0.1,
    )
    found = []
    for update in (1, 34, 67, 100):
        part.before_update(update)
        found.append(part.selector.temperature)
    assert found == pytest.approx([10.0, 6.7, 3.4, 0.1])
    assert part.metrics() == {"token_keep_rate": 12 / 17, "temperature": pytest.approx(0.1)}
    assert "patch_drop.scorer" not in prunable_weights(model), "the selector stays dense"
    seen = []
    model.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))  # type: ignore[union-attr]
    model.eval()(torch.randn(2, 1, 8, 8))
    assert seen == [12], "dropped tokens take part in nothing"
