"""While an interpreter learns a batch goes on twice: the sampled choice first, the thresholded one second."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import small_config
from torch import Tensor, nn

from repro.methods.tokens.ia_red2 import IARED2
from repro.methods.tokens.interpreter import Interpreter
from repro.models.backbone import build_model
from repro.models.token_dropping import Decision, Dropper, DroppingBlocks

PATCHES = 4
# Patches are worth 1, 2, 4 and 8 in the first image and 16, 32, 64 and 128 in the second: a sum says which are in it.
VALUES = torch.tensor([[0.0, 1, 2, 4, 8], [0, 16, 32, 64, 128]])[..., None]


class AddsUp(nn.Module):
    """A block: the class token becomes the sum of the patches that it may attend to, and is left alone afterwards."""

    def forward(self, values: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        there = torch.ones(values.shape[:2]) if attn_mask is None else attn_mask[:, 0, 0].float()
        found = values.clone()
        found[:, 0, 0] = (values[:, 1:, 0] * there[:, 1:]).sum(1)
        return found


class Both(Dropper):
    """Two choices, from tables; a batch that has doubled already has them side by side in `keep`."""

    def __init__(self, keep: list[list[int]], second: list[list[int]] | None = None) -> None:
        super().__init__()
        self.keep, self.second = keep, second
        self.seen: list[list[float]] = []

    def forward(self, values: Tensor, valid: Tensor, block: Any) -> Decision:
        self.seen = values[:, 1:, 0].masked_fill(~valid, 0).tolist()
        second = None if self.second is None else torch.tensor(self.second) > 0
        keep = torch.tensor(self.keep)[:, : valid.shape[1]] > 0
        return Decision(keep, keep.float(), second)


def sums(blocks: DroppingBlocks, values: Tensor = VALUES) -> list[float]:
    with torch.no_grad():
        return [float(value) for value in blocks(values)[:, 0, 0]]


@pytest.mark.parametrize("execution", ["masked", "padded", "grouped"])
def test_the_images_of_the_first_choice_come_first(execution: str) -> None:
    chooser = Both([[1, 0, 0, 1], [0, 1, 0, 0]], second=[[0, 1, 1, 1], [1, 0, 0, 1]])
    blocks = DroppingBlocks([AddsUp()], [chooser], PATCHES, execution).train()
    assert sums(blocks) == [1 + 8, 32, 2 + 4 + 8, 16 + 128]
    chooser.second = None
    assert sums(blocks) == [1 + 8, 32]


@pytest.mark.parametrize("execution", ["masked", "padded", "grouped"])
def test_the_order_stays_through_the_stages_behind(execution: str) -> None:
    """The next stage sees four images, in that order, each with what its own choice has left."""
    first = Both([[1, 0, 0, 1], [0, 1, 1, 0]], second=[[0, 1, 1, 0], [1, 0, 0, 1]])
    left = [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    then = Both([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]] if execution == "masked" else [[1, 0]] * 4)
    blocks = DroppingBlocks([AddsUp(), AddsUp()], [first, then], PATCHES, execution).train()
    found = sums(blocks)
    twice = torch.cat([VALUES, VALUES])[:, 1:, 0]
    there = [
        [float(value) for value, kept in zip(line, keep, strict=True) if kept]
        for line, keep in zip(twice, left, strict=True)
    ]
    assert there == [[1, 8], [32, 64], [2, 4], [16, 128]]
    assert [[value for value in line if value] for line in then.seen] == there
    assert found == ([1, 64, 2, 128] if execution == "masked" else [1, 32, 2, 16])


class Says(Interpreter):
    """An interpreter whose scores are given."""

    def scores(self, values: Tensor) -> Tensor:
        return torch.tensor([[0.9, 0.6, 0.4, 0.1], [0.2, 0.7, 0.8, 0.5]])


def test_draws_decide_first_and_the_threshold_second(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = Says(1, 1, PATCHES, threshold=0.5, initial_logit=0.0)
    blocks = DroppingBlocks([AddsUp()], [interpreter], PATCHES, "padded").train()
    draws = torch.tensor([[0.95, 0.5, 0.3, 0.05], [0.1, 0.7, 0.9, 0.6]])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    interpreter.is_sampling = True
    # A draw below the score keeps: patches 2, 3, 4 of the first image, 1 of the second. Above 0.5: 1, 2 and 2, 3.
    assert sums(blocks) == [2 + 4 + 8, 16, 1 + 2, 32 + 64]
    assert interpreter.kept_shares is not None
    assert interpreter.kept_shares.tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert interpreter.log_probability is not None
    chances = [0.1 * 0.6 * 0.4 * 0.1, 0.2 * 0.3 * 0.2 * 0.5]
    assert interpreter.log_probability.exp().tolist() == pytest.approx(chances, rel=1e-5)
    interpreter.is_sampling = False
    assert sums(blocks.eval()) == [1 + 2, 32 + 64], "an evaluation draws nothing and sees each image once"


def test_rewards_of_the_first_half_are_the_sampled_choices() -> None:
    config = small_config("method=dense")
    options = {"interpreters": 1, "heads": 1, "threshold": 0.5, "initial_logit": 0.0, "tau": 1.0, "reward_power": 1.0}
    options |= {"interpreter_share": 0.5, "keep_rates": [0.5], "keep_spread": 0.0, "execution": "padded"}
    part = IARED2(build_model(config.model, 0.0, 0), tokens=config.model.tokens, updates=4, seed=0, **options)  # type: ignore[arg-type]
    part.before_update(1)
    (interpreter,) = part.interpreters

    def forward(images: Tensor) -> Tensor:
        interpreter.kept_shares = torch.tensor([[0.25, 0.5], [0.5, 0.75]])
        interpreter.log_probability = torch.tensor([-1.0, -2.0])
        return nn.functional.one_hot(torch.tensor([1, 0, 1, 1]), 2).float()

    loss = part.objective(forward, torch.zeros(2, 1, 8, 8), torch.tensor([1, 1]), nn.CrossEntropyLoss())
    # Sampled: right with a quarter kept, then wrong: 0.75 and -1. Thresholded: right with 0.5 and 0.75: 0.5 and 0.25.
    assert loss is not None
    assert float(loss) == pytest.approx(-((0.75 - 0.5) * -1 + (-1 - 0.25) * -2) / 2)
    part.after_step(1)
    assert {name: part.metrics()[name] for name in ("reward_sampled", "reward_thresholded")} == {
        "reward_sampled": pytest.approx(-0.125),
        "reward_thresholded": pytest.approx(0.375),
    }
    assert (part.metrics()["kept_sampled"], part.metrics()["kept_thresholded"]) == (0.375, 0.625)
