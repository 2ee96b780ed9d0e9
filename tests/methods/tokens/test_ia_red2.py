"""IA-RED2's training: rewards and their gradient by hand, who learns when, and that the object is what it keeps."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Kept, Weights, config_of, same, small_config, trainer
from torch import Tensor

from repro.config.compose import compose
from repro.errors import UserError
from repro.interruption import Interrupted
from repro.methods.tokens.curriculum import Curriculum, Phase
from repro.methods.tokens.ia_red2 import IARED2, policy_loss, rewards
from repro.methods.tokens.interpreter import log_probability
from repro.models.backbone import build_model
from repro.models.token_dropping import tracing


def test_rewards_by_hand() -> None:
    right, kept = torch.tensor([True, True, False]), torch.tensor([0.25, 1.0, 0.25])
    assert rewards(right, kept, tau=2.0, power=1.0).tolist() == [0.75, 0.0, -2.0]
    assert rewards(right, kept, tau=0.5, power=2.0).tolist() == [0.9375, 0.0, -0.5]


@pytest.mark.parametrize("baseline", [0.0, -0.7, 0.4])
def test_the_expected_gradient_is_that_of_the_expected_reward(baseline: float) -> None:
    """Over all eight choices of three patches, each weighted with its probability; whatever the baseline."""
    choices = torch.tensor(list(itertools.product([True, False], repeat=3)))
    valid = torch.ones_like(choices)
    right = torch.tensor([True, True, True, False, True, False, False, False])  # needs two patches, or the second
    worth = rewards(right, choices.float().mean(1), tau=1.0, power=1.0)

    logits = torch.tensor([0.3, -1.0, 0.8], requires_grad=True)
    probabilities = torch.sigmoid(logits).expand(8, -1)
    logs = log_probability(probabilities, choices, valid)
    weights = logs.detach().exp()
    assert weights.sum().item() == pytest.approx(1.0, rel=1e-5)
    losses = [
        policy_loss(worth[i : i + 1], torch.tensor([baseline]), logs[i : i + 1]) for i in range(8)
    ]  # as if each had been the one that was drawn
    torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum().backward()

    exact = torch.tensor([0.3, -1.0, 0.8], requires_grad=True)
    p = torch.sigmoid(exact)
    chances = torch.where(choices, p, 1 - p).prod(1)
    (-(chances * worth).sum()).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad, exact.grad, rtol=1e-4, atol=1e-6)


def test_the_curriculum_of_the_paper() -> None:
    """Ninety epochs of 100 updates: 10 epochs of each 30 for the stage's interpreter."""
    curriculum = Curriculum(updates=9000, stages=3, share=1 / 3)
    for stage in (1, 2, 3):
        first = (stage - 1) * 3000 + 1
        assert curriculum.phase_at(first) == curriculum.phase_at(first + 999)
        assert curriculum.phase_at(first) == Phase(stage, trains_interpreter=True)
        assert curriculum.phase_at(first + 1000) == Phase(stage, trains_interpreter=False)
        assert not curriculum.phase_at(first + 2999).trains_interpreter
    assert [curriculum.is_final(update) for update in (1, 7000, 7001, 9000)] == [False, False, True, True]
    shortest = Curriculum(updates=6, stages=3, share=1 / 3)
    assert [shortest.phase_at(update).trains_interpreter for update in range(1, 7)] == [True, False] * 3


def learning_of(run: Any) -> set[str]:
    """The parameters that an update of the run really moves."""
    before = {name: value.detach().clone() for name, value in run.state.model.named_parameters()}
    run.update(iter(run.loader.batches(0, 0)))
    return {name for name, value in run.state.model.named_parameters() if not torch.equal(value, before[name])}


def parts_of(names: set[str]) -> set[str]:
    return {".".join(name.split(".")[: 2 if name.startswith(("blocks", "droppers")) else 1]) for name in names}


def test_exactly_what_the_stage_says_moves(tmp_path: Path, dense: Weights) -> None:
    """Two stages of four updates, one of them the interpreter's; blocks before an open interpreter never move."""
    config = config_of("ia_red2", "model.num_heads=2", "method.tokens.tau=3")
    run = trainer(config, tmp_path, dense)
    moved = [parts_of(learning_of(run)) for _ in range(8)]
    behind_first = {"blocks.0", "blocks.1", "norm", "head"}
    assert moved[0] <= {"droppers.0"}
    assert moved[1:4] == [behind_first] * 3
    assert moved[4] <= {"droppers.1"}
    assert moved[5:8] == [{"blocks.1", "norm", "head"}] * 3
    assert moved[0] | moved[4] == {"droppers.0", "droppers.1"}, "both interpreters have learnt"


def test_what_is_frozen_has_no_gradient(tmp_path: Path, dense: Weights) -> None:
    run = trainer(config_of("ia_red2"), tmp_path, dense)
    run.update(iter(run.loader.batches(0, 0)))
    held = {name for name, value in run.state.model.named_parameters() if value.grad is not None}
    assert parts_of(held) == {"droppers.0"}


def test_stages_open_one_after_the_other_and_the_best_is_of_the_last(tmp_path: Path, dense: Weights) -> None:
    kept = Kept()
    run = trainer(config_of("ia_red2", "run.log_every_updates=1"), tmp_path, dense, kept)
    result = run.run()
    assert [entry["stage"] for entry in kept.of("train")] == [1] * 4 + [2] * 4
    assert [run.state.parts[0].is_at_target(update) for update in range(1, 9)] == [False] * 5 + [True] * 3
    assert result["top1_best_epoch"] == 2
    for entry in kept.of("eval"):
        assert 0 <= entry["keep_rate_2"] <= entry["keep_rate_1"] <= 1
        assert entry["keep_rate_1"] ** 2 <= entry["keep_rate_square_1"] + 1e-9
    assert kept.of("eval")[0]["keep_rate_2"] == kept.of("eval")[0]["keep_rate_1"], "the second was not open yet"
    assert result["keep_rate_2"] == kept.of("eval")[-1]["keep_rate_2"]


@pytest.mark.parametrize("stop", range(1, 8))
def test_resumed_from_any_update_it_ends_alike(stop: int, tmp_path: Path, dense: Weights) -> None:
    """Within an interpreter's part, at its end, at the end of a stage, and in the last one."""
    config = config_of("ia_red2")
    straight = trainer(config, tmp_path / "straight", dense)
    straight.run()
    with pytest.raises(Interrupted):
        trainer(config, tmp_path / "pieces", dense, stop_at=stop).run()
    resumed = trainer(config, tmp_path / "pieces", dense)
    resumed.run()
    left, right = straight.state.state_dict(), resumed.state.state_dict()
    assert all(same(left[key], right[key]) for key in left.keys() - {"wall_s"})


def test_another_copy_of_the_model_opens_the_same_stages(tmp_path: Path, dense: Weights) -> None:
    """An average, where somebody wants one, is evaluated with as many interpreters as the model itself."""
    config = config_of("ia_red2", "method.finetune.changes.ema_decay=0.99996")
    run = trainer(config, tmp_path, dense)
    run.update(iter(run.loader.batches(0, 0)))
    assert run.state.optimization.ema is not None
    copy: Any = run.state.optimization.ema.module
    copy.blocks.open_stages = 2
    run.state.parts[0].constrain(copy)
    assert copy.blocks.open_stages == 1
    assert copy.blocks.droppers[0] is copy.droppers[0], "a copy's blocks ask the copy's own interpreters"


def test_gradients_of_an_interpreter_are_those_of_the_global_batch(tmp_path: Path, dense: Weights) -> None:
    """One pass over both choices: the loss is the mean over the micro-batch, and the micro-batches' mean."""
    run = trainer(config_of("ia_red2"), tmp_path, dense)
    part: Any = run.state.parts[0]
    part.before_update(1)
    images, labels = next(iter(run.loader.batches(0, 0)))
    run.state.model.train()
    torch.manual_seed(5)
    loss = part.objective(run.state.model, images, labels, torch.nn.CrossEntropyLoss())
    interpreter = part.interpreters[0]
    logs, shares = interpreter.log_probability, interpreter.kept_shares
    torch.manual_seed(5)
    with torch.no_grad():
        guesses = run.state.model(images).argmax(1).chunk(2)
    worth = [
        rewards(guess == labels, share, part.tau, part.reward_power)
        for guess, share in zip(guesses, shares, strict=True)
    ]
    by_hand = -((worth[0] - worth[1]) * logs).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_an_interpreter_has_at_most_the_heads_of_the_backbone() -> None:
    geometry = small_config("method=dense").model
    good = dict(small_config("method=ia_red2", "method.tokens.interpreters=2").method.tokens.options)  # type: ignore[union-attr]
    good |= {"tokens": 17, "updates": 8, "seed": 0}
    made = IARED2(build_model(geometry, 0.0, 0), **{**good, "heads": 5})  # type: ignore[arg-type]
    assert made.interpreters[0].heads == 3, "the backbone's, where it has fewer"
    with pytest.raises(UserError, match=r"interpreters=4: ia_red2 has levels 1, 2, 3"):
        compose(["method=ia_red2", "method.tokens.interpreters=4"])


ON_SHAPES = (
    *("backbone=deit_small", "data=shapes", "recipe=shapes_local", "tracker=none", "run.device=cpu"),
    *("model.image_size=24", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8"),
    *("model.depth=2", "data.limit_train=2048", "data.limit_test=256"),
)


@pytest.fixture(scope="module")
def on_shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tensor, Tensor]:
    """A model that has learnt shapes for a minute's fraction, then what to keep of them; test images and masks."""
    folder = tmp_path_factory.mktemp("shapes")
    dense_run = trainer(
        compose([*ON_SHAPES, "method=dense", "recipe.epochs=5", "recipe.evaluate_every_epochs=5"]), folder / "a"
    )
    dense_run.run()
    config = compose([*ON_SHAPES, "method=ia_red2", "method.tokens.interpreters=1", "method.finetune.changes.epochs=5"])
    run = trainer(config, folder / "b", dense_run.state.model.state_dict())
    run.run()
    test: Any = run.splits.test
    images = torch.stack([test[index][0] for index in range(len(test))])
    return run.state.model.eval(), images, test.masks


def test_a_trained_interpreter_keeps_the_object_far_more_often_than_the_background(
    on_shapes: tuple[Any, Tensor, Tensor],
) -> None:
    model, images, masks = on_shapes
    with torch.inference_mode(), tracing(model) as traces:
        model(images)
    cover = masks.view(-1, 6, 4, 6, 4).float().mean((2, 4)).flatten(1)
    kept = traces[0].kept
    on_object = kept[cover >= 0.5].float().mean().item()
    on_background = kept[cover == 0].float().mean().item()
    assert on_object > 0.7
    assert on_background < on_object / 4
