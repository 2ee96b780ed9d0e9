"""The interpreter by hand: its scores, its choices and their probability."""

from __future__ import annotations

import math

import pytest
import torch

from repro.methods.tokens.interpreter import Interpreter, forced_counts, log_probability
from repro.models.token_dropping import keep_best


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand() -> Interpreter:
    """Two heads of width 1 over tokens of width 2; layer norm off, queries and keys chosen."""
    made = Interpreter(2, 2, patches=3, threshold=0.5, initial_logit=0.0)
    with torch.no_grad():
        made.norm = torch.nn.Identity()  # type: ignore[assignment]
        made.query.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        made.key.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    return made


def test_scores_by_hand() -> None:
    # Class token (1, 1): q = (1, 2). Patches (2, 0), (0, -3), (1, 1): k = (0, 2), (-3, 0), (1, 1). Head width 1.
    values = torch.tensor([[[1.0, 1.0], [2.0, 0.0], [0.0, -3.0], [1.0, 1.0]]])
    expected = [(sigmoid(0) + sigmoid(4)) / 2, (sigmoid(-3) + sigmoid(0)) / 2, (sigmoid(1) + sigmoid(2)) / 2]
    made = by_hand()
    assert made.scores(values)[0].tolist() == pytest.approx(expected)
    decision = made(values, torch.ones(1, 3, dtype=torch.bool), None)
    assert decision.keep.tolist() == [[True, False, True]], "above 0.5: a mean of sigmoids, not a sigmoid of means"
    assert decision.alternative is None


def test_scores_are_scaled_by_the_width_of_a_head() -> None:
    made = Interpreter(4, 1, patches=1, threshold=0.5, initial_logit=0.0)
    made.norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        made.query.weight.copy_(torch.eye(4))
        made.key.weight.copy_(torch.eye(4))
    values = torch.tensor([[[1.0, 1, 1, 1], [1.0, 2, 0, 3]]])
    assert made.scores(values).item() == pytest.approx(sigmoid(6 / 2))


@pytest.mark.parametrize("logit", [1.0, 0.0, -2.0])
def test_every_patch_starts_with_the_initial_logit_but_for_what_is_drawn(logit: float) -> None:
    torch.manual_seed(0)
    made = Interpreter(48, 6, patches=3, threshold=0.5, initial_logit=logit)
    with torch.no_grad():
        made.query.weight.zero_()
        made.key.weight.zero_()
    assert made.scores(torch.randn(2, 4, 48)).flatten().tolist() == pytest.approx([sigmoid(logit)] * 6, abs=1e-5)


def test_the_probability_of_a_choice_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.9, 0.2], [0.5, 0.9, 0.2]])
    chosen = torch.tensor([[True, True, False], [False, True, True]])
    valid = torch.tensor([[True, True, True], [True, False, True]])
    found = log_probability(probabilities, chosen, valid)
    assert found.tolist() == pytest.approx([math.log(0.5 * 0.9 * 0.8), math.log(0.5 * 0.2)], rel=1e-5)


def test_certain_choices_have_a_finite_probability_and_gradient() -> None:
    probabilities = torch.tensor([[1.0, 0.0]], requires_grad=True)
    found = log_probability(probabilities, torch.tensor([[False, True]]), torch.ones(1, 2, dtype=torch.bool))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert probabilities.grad is not None
    assert torch.isfinite(probabilities.grad).all()


def test_samples_follow_the_scores_and_come_before_the_thresholded_choice() -> None:
    made = by_hand()
    made.is_sampling = True
    values = torch.tensor([[[1.0, 1.0], [2.0, 0.0], [0.0, -3.0], [1.0, 1.0]]]).expand(20_000, -1, -1)
    torch.manual_seed(0)
    decision = made(values, torch.ones(20_000, 3, dtype=torch.bool), None)
    scores = made.scores(values)[0]
    # Five standard deviations of 20 000 draws: 0.018.
    assert decision.keep.float().mean(0).tolist() == pytest.approx(scores.tolist(), abs=0.018)
    assert decision.alternative is not None
    assert decision.alternative[0].tolist() == [True, False, True]
    assert made.kept_shares is not None
    assert made.kept_shares[1, 0].item() == pytest.approx(2 / 3)


def test_a_forced_interpreter_keeps_the_best_at_the_rate_on_average_and_never_what_is_gone() -> None:
    scores = torch.rand(50, 40, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(50, 40, dtype=torch.bool)
    keep = keep_best(
        scores, valid, forced_counts(50, torch.device("cpu"), patches=40, keep_rate=0.5, spread=0.4)[:, None]
    )
    counts = keep.sum(1)
    assert counts.float().mean().item() == pytest.approx(20, abs=0.3)
    assert (int(counts.min()), int(counts.max())) == (12, 28)
    for image in range(50):
        assert scores[image][keep[image]].min() > scores[image][~keep[image]].max()
    valid[:, :30] = False
    scarce = keep_best(scores, valid, torch.full((50, 1), 20))
    assert torch.equal(scarce, valid), "all ten that are left"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_asked_is_what_keys_would_answer(dtype: torch.dtype) -> None:
    """Query and key written out, without their product taken apart; weights of half precision, too."""
    torch.manual_seed(0)
    made = Interpreter(24, 3, patches=10, threshold=0.5, initial_logit=1.0).to(dtype)
    with torch.no_grad():
        made.key.bias.normal_()
    values = torch.randn(4, 11, 24).to(dtype)
    found = made.scores(values)
    exact = made.double()
    normed = exact.norm(values.double())
    query = exact.query(normed[:, 0]).view(4, 1, 3, 8)
    logits = (query * exact.key(normed[:, 1:]).view(4, 10, 3, 8)).sum(-1) / math.sqrt(8)
    assert found.dtype == torch.float32
    bound = 1e-6 if dtype == torch.float32 else 0.02  # half precision rounds what is normed, and the query
    torch.testing.assert_close(found.double(), torch.sigmoid(logits).mean(-1), rtol=0, atol=bound)


def test_both_weights_learn_though_no_patch_has_a_key() -> None:
    torch.manual_seed(0)
    made = Interpreter(24, 3, patches=10, threshold=0.5, initial_logit=1.0)
    values = torch.randn(4, 11, 24)
    made.scores(values).square().sum().backward()
    found = [weight.grad.clone() for weight in made.parameters() if weight.grad is not None]
    made.zero_grad()
    normed = made.norm(values)
    query = made.query(normed[:, 0]).view(4, 1, 3, 8)
    logits = (query * made.key(normed[:, 1:]).view(4, 10, 3, 8)).sum(-1) / math.sqrt(8)
    torch.sigmoid(logits).mean(-1).square().sum().backward()
    assert len(found) == 6
    for ours, written_out in zip(found, made.parameters(), strict=True):
        torch.testing.assert_close(ours, written_out.grad, rtol=1e-4, atol=1e-6)
