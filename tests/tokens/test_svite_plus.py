"""The token selector: how many, which, how it learns, and what evaluation does."""

from __future__ import annotations

import pytest
import torch
from small_runs import small_config

from repro.composition import compose
from repro.errors import UserError
from repro.measure.cost import tokens_kept
from repro.models.backbone import build_model
from repro.sparsity.masks import prunable_weights
from repro.tokens.svite_plus import InputTokenSelector, TokenSelector


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
    assert tokens_kept(config.backbone.paper, config.method.tokens) == kept
    # The small backbone has 17 tokens and keeps the same fraction of them.
    assert tokens_kept(config.model, config.method.tokens) == round(17 * kept / 197)


def test_evaluation_keeps_the_highest_in_their_order_and_is_deterministic() -> None:
    chosen = selector(3).eval()
    out = chosen(tokens())
    assert out[..., 0].tolist() == [[-7, 4, 5], [-7, 4, 5]]
    assert torch.equal(out, chosen(tokens()))


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


@pytest.mark.parametrize("changes", [{"kept": 1}, {"kept": 18}, {"temperature_end": 0.0}])
def test_what_cannot_be_kept_is_refused(changes: dict[str, float]) -> None:
    options = {
        **{"tokens": 17, "kept": 12, "selection": "gather", "updates": 100, "seed": 0},
        **{"temperature_start": 10.0, "temperature_end": 0.1},
    }
    with pytest.raises(UserError, match=r"method\.tokens"):
        InputTokenSelector(build_model(small_config("method=dense").model, 0.0, 0), **{**options, **changes})  # type: ignore[arg-type]
