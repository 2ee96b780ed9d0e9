"""The learning rate in stages whose parts have a cosine each."""

from __future__ import annotations

import math
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.config import Recipe
from repro.config.compose import compose
from repro.counting.schedule import Length, cycle_starts
from repro.errors import UserError
from repro.methods.tokens.curriculum import Curriculum
from repro.tables.loader import load_table
from repro.training.recipe import build_optimization

ROW = load_table("table3").select(["timesformer/ia_red2"])[0]
PAPER = [*ROW.overrides_at("paper"), "data.root=somewhere"]


def rates(recipe: Recipe, length: Length, stages: int, restarts: tuple[float, ...]) -> list[float]:
    found = build_optimization(torch.nn.Linear(2, 2), recipe, 2, length, 1.0, stages, restarts)
    return [found.set_learning_rate(update, length) for update in range(1, length.updates + 1)]


def test_the_blocks_of_the_video_row_learn_at_the_published_rate() -> None:
    config = compose(PAPER)
    recipe, length = config.effective_recipe, Length(100, 6, 64)
    own = rates(recipe, length, config.stages, config.restarts)
    assert recipe.peak_lr == pytest.approx(2.5e-3)
    assert (own[0], own[500]) == pytest.approx((2.5e-3, 2.5e-3))
    assert own[250] == pytest.approx(1.25e-3)
    assert own[550] == pytest.approx(1.25e-3)
    assert own[599] == pytest.approx(2.5e-3 * 0.5 * (1 + math.cos(math.pi * 0.99)))
    one = rates(recipe, length, config.stages, ())
    assert mean(one[500:]) / 2.5e-3 == pytest.approx(0.023, abs=0.001)
    assert mean(own[500:]) / 2.5e-3 == pytest.approx(0.5, abs=0.01)


def test_by_epochs_a_part_of_one_epoch_stays_at_its_peak() -> None:
    recipe = compose(PAPER).effective_recipe.model_copy(update={"schedule_by": "epoch"})
    own = rates(recipe, Length(10, 6, 64), 1, (5 / 6,))
    assert own[:10] == [recipe.peak_lr] * 10
    assert own[50:] == [recipe.peak_lr] * 10
    assert own[40] == pytest.approx(recipe.peak_lr * 0.5 * (1 + math.cos(math.pi * 0.8)))


@given(st.integers(1, 400), st.integers(1, 4), st.floats(0.01, 0.99))
def test_parts_begin_where_the_curriculum_changes(updates: int, stages: int, share: float) -> None:
    stages = min(stages, updates)
    curriculum = Curriculum(updates, stages, share)
    moments = [curriculum.phase_at(update) for update in range(1, updates + 1)]
    changes = [1] + [at + 1 for at in range(1, updates) if moments[at] != moments[at - 1]]
    starts = [start for start in cycle_starts(updates, stages, [share]) if start <= updates]
    assert sorted(set(starts)) == changes


def test_runs_without_restarts_are_what_they_were() -> None:
    (image,) = load_table("table3").select(["deit_small/ia_red2"])
    plain = compose(image.overrides_at("local"))
    assert plain.restarts == ()
    assert "restarts" not in plain.model_dump(mode="json")["method"]["finetune"]
    with_them = compose([*image.overrides_at("local"), "method.finetune.restarts=[0.5]"])
    assert with_them.signature != plain.signature
    assert with_them.restarts == (0.5,)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.finetune.restarts=[1.5]", "restarts"),
        ("method.finetune.changes.warmup_epochs=1", "restarts without warm-up"),
    ],
)
def test_restarts_that_cannot_be_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compose([*PAPER, override])
