"""Every method through the real loop: sparse after every update, bit for bit after an interruption, and logged."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_runs import METHODS, ON_RESNET, ON_TOKENS, Kept, Weights, config_of, same, small_config, splits_of, trainer
from torch import nn

from repro.config import Config
from repro.errors import UserError
from repro.interruption import Interrupted
from repro.methods.weights.masks import prunable_weights
from repro.training.loop import RunFailed

PRUNED_ONCE = ("omp", "tp", "ssp")
SPARSE_WEIGHTS = [name for name in METHODS if name != "dense"]


@pytest.mark.parametrize("name", [*METHODS, *ON_TOKENS, *ON_RESNET])
def test_interrupted_at_some_update_and_resumed_is_bit_identical(
    name: str, tmp_path: Path, dense: Weights, dense_resnet: Weights
) -> None:
    config, weights = config_of(name), dense_resnet if name in ON_RESNET else dense
    whole = Kept()
    straight = trainer(config, tmp_path / "straight", weights, whole)
    result = straight.run()
    # In the middle of an epoch, at the end of one, and after the first update of all; and again while going on.
    pieces, stops = Kept(), [1, 4, 6, 11] if straight.length.updates == 12 else [1, 4, 7]
    for stop in stops:
        with pytest.raises(Interrupted):
            trainer(config, tmp_path / "pieces", weights, pieces, stop).run()
    resumed = trainer(config, tmp_path / "pieces", weights, pieces)
    assert resumed.resumed_from == stops[-1]
    again = resumed.run()
    left, right = straight.state.state_dict(), resumed.state.state_dict()
    assert left.keys() == right.keys()
    for key in left.keys() - {"wall_s"}:
        assert same(left[key], right[key]), key
    assert {k: v for k, v in result.items() if k != "wall_s"} == {k: v for k, v in again.items() if k != "wall_s"}
    for kind in ("train", "eval", "masks"):
        assert whole.of(kind) == pieces.of(kind), kind


@pytest.mark.parametrize("name", SPARSE_WEIGHTS)
def test_the_trained_model_is_as_sparse_as_the_row_says(name: str, tmp_path: Path, dense: Weights) -> None:
    config = small_config(*METHODS[name])
    kept = Kept()
    run = trainer(config, tmp_path, dense, kept)
    result = run.run()
    weights = prunable_weights(run.state.model)
    zero = sum(int((weight == 0).sum()) for weight in weights.values())
    density = 1 - zero / sum(weight.numel() for weight in weights.values())
    history = kept.of("masks")
    if config.method.weights is not None and config.method.weights.distribution is not None:
        drawn = name.startswith("svite") and "global" not in name
        if "block" not in config.method.weights.options:
            assert density == pytest.approx(1 - config.method.sparsity, abs=0.02 if drawn else 0.01)
        else:
            assert_the_whole_model_is_at_its_target(config, {n: int(w.count_nonzero()) for n, w in weights.items()})
        assert result["density"] == pytest.approx(density, abs=1e-3)
        assert result["ever_active"] >= result["density"]
        assert {key for key in history[-1] if key.startswith("density/")} == {f"density/{layer}" for layer in weights}
    else:
        assert result["heads_density"] == pytest.approx(2 / 3)
        assert result["neurons_density"] == pytest.approx(33 / 48)
        assert density < 0.8
    assert history[0]["update"] == 0
    if name in PRUNED_ONCE:
        assert len(history) == 1
    else:
        assert [entry["update"] for entry in history] == list(range(10)), "T_end is 0.8 of the training"
        assert all(0 <= entry["churn"] <= 0.5 + 1e-3 for entry in history)


def assert_the_whole_model_is_at_its_target(config: Config, nonzero: dict[str, int]) -> None:
    """Within one block of it, and not above."""
    assert config.method.weights is not None
    model, options = config.model.dense_model(), config.method.weights.options
    largest = {"entry": 1, "4x4": 16, "neuron": 4 * 4 * 12}[options["block"]]
    left = 1 - config.method.sparsity
    if options["cost"] == "macs":
        spent = model.attention_macs + sum(nonzero[layer.name] * layer.uses for layer in model.layers)
        assert 0 <= left * model.macs - spent < largest * 17
    else:
        assert 0 <= left * model.params - model.vector_params - sum(nonzero.values()) < largest


@pytest.mark.parametrize(
    "name", ["spartan", "spartan blocks", "spartan neuron", "top_kast", "s2vite", "gmp", "omp", "ssp"]
)
def test_weights_stay_sparse_after_every_update_and_in_the_average(name: str, tmp_path: Path, dense: Weights) -> None:
    run = trainer(small_config(*METHODS[name]), tmp_path, dense)
    (part,) = run.state.parts
    batches = iter(run.loader.batches(0, 0))
    for _ in range(4):
        run.update(batches)
        state = {key: value.clone() for key, value in run.state.model.state_dict().items()}
        part.constrain(run.state.model)
        assert same(state, dict(run.state.model.state_dict()))
    assert run.state.optimization.ema is not None
    average = run.state.optimization.ema.module
    part.constrain(average)
    inactive = copy.deepcopy(run.state.model)
    with torch.no_grad():
        for weight in inactive.parameters():
            weight.fill_(1)
    part.constrain(inactive)
    zeros = 0
    for place, averaged in zip(inactive.parameters(), average.parameters(), strict=True):
        assert not averaged[place == 0].any()
        zeros += int((place == 0).sum())
    assert zeros > 500


@pytest.mark.parametrize("micro", [8, 16, 32])
def test_the_gradient_that_is_scored_is_that_of_the_global_batch(micro: int, tmp_path: Path, dense: Weights) -> None:
    """Whatever the accumulation: against one pass over all images at once."""
    plain = ("recipe.mixup=0", "recipe.drop_path=0", f"recipe.micro_batch={micro}")
    run = trainer(small_config("method=dense", *plain), tmp_path)
    run.accumulate_gradients(3)
    scored = {
        name: weight.grad.clone() for name, weight in run.state.model.named_parameters() if weight.grad is not None
    }
    images, labels = [], []
    for number, (some, names) in enumerate(run.loader.batches(0, 0)):
        if number < 3 * run.loader.accumulate:
            images.append(some)
            labels.append(names)
    run.state.model.zero_grad()
    loss: nn.Module = run.state.optimization.loss
    loss(run.state.model(torch.cat(images)), torch.cat(labels)).backward()
    for name, weight in run.state.model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(scored[name], weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro", [8, 32])
def test_mixed_precision_scores_the_same_gradient(micro: int, tmp_path: Path) -> None:
    """In float32, of the whole batch, as without it but for bfloat16's rounding of the forward pass (8 bits)."""
    plain = ("method=dense", "recipe.mixup=0", "recipe.drop_path=0", f"recipe.micro_batch={micro}")
    gradients = []
    for amp in ("none", "bfloat16"):
        run = trainer(small_config(*plain, f"recipe.amp={amp}"), tmp_path / amp)
        run.accumulate_gradients(1)
        gradients.append({name: weight.grad for name, weight in run.state.model.named_parameters()})
    exact, mixed = gradients
    largest = 0.0
    for name, gradient in exact.items():
        other = mixed[name]
        assert gradient is not None
        assert other is not None
        assert other.dtype == torch.float32
        distance = float((other - gradient).norm() / gradient.norm())
        assert distance < 0.05, name
        largest = max(largest, distance)
    assert largest > 1e-4, "mixed precision was on"


@pytest.mark.parametrize("name", ["svite", "s2vite", "s2vite as released", "svite_plus", "gmp", "tp", "ssp"])
def test_methods_choose_in_mixed_precision_too(name: str, tmp_path: Path, dense: Weights) -> None:
    kept = Kept()
    run = trainer(small_config(*METHODS[name], "recipe.amp=bfloat16", "recipe.epochs=2"), tmp_path, dense, kept)
    run.run()
    assert kept.of("masks")
    assert all(weight.dtype == torch.float32 for weight in run.state.model.parameters())


def test_preparation_changes_no_weight_by_itself(tmp_path: Path) -> None:
    run = trainer(small_config("method=dense"), tmp_path)
    before = {key: value.clone() for key, value in run.state.model.state_dict().items()}
    run.accumulate_gradients(9)  # more than two epochs of batches
    assert same(before, dict(run.state.model.state_dict()))


def test_fine_tuning_is_half_as_long_at_half_the_rate(tmp_path: Path, dense: Weights) -> None:
    config = small_config("method=omp", "recipe.epochs=8")
    assert config.effective_recipe.epochs == 4
    assert config.effective_recipe.warmup_epochs == 0.5
    assert config.effective_recipe.peak_lr == config.recipe.peak_lr / 2
    assert small_config("method=gmp").effective_recipe is not None
    assert small_config("method=gmp").effective_recipe.epochs == 3


def test_a_method_that_begins_with_trained_weights_refuses_to_begin_without(tmp_path: Path, dense: Weights) -> None:
    with pytest.raises(UserError, match="starts from the weights of dense"):
        trainer(small_config("method=omp"), tmp_path)
    config = small_config("method=svite")
    context = trainer(config, tmp_path).context
    from repro.training.loop import Trainer

    with pytest.raises(UserError, match="no other run"):
        Trainer(config, splits_of(config), context, dense)


@pytest.mark.parametrize("name", ["svite", "s2vite", "s2vite as released", "gmp", "spartan", "imp", "top_kast"])
def test_a_gradient_that_is_not_a_number_fails_the_run_with_a_reason(name: str, tmp_path: Path) -> None:
    run = trainer(small_config(*METHODS[name]), tmp_path)
    batches = iter(run.loader.batches(0, 0))
    images, labels = next(batches)
    poisoned = iter([(images * float("nan"), labels)] * 4)
    with pytest.raises(RunFailed, match="after update 1: a score is not a number"):
        run.update(poisoned)


@pytest.mark.parametrize("name", ["tp", "ssp", "omp"])
def test_trained_weights_that_are_not_numbers_fail_the_run_with_a_reason(
    name: str, tmp_path: Path, dense: Weights
) -> None:
    broken = {key: value * float("nan") for key, value in dense.items()}
    with pytest.raises(RunFailed, match="pruning before the first update: a score is not a number"):
        trainer(small_config(*METHODS[name]), tmp_path, broken)


def test_a_schedule_that_cannot_be_is_refused_when_the_data_are_counted(tmp_path: Path) -> None:
    """Where nobody says how many images there are, the config cannot know."""
    for override, message in (
        ("method.weights.update_end_iterations=9000000", "masks would change until update"),
        ("method.weights.update_interval_iterations=9000000", "masks would never change"),
    ):
        config = small_config("method=svite", "data.images_per_epoch=null", override)
        with pytest.raises(UserError, match=message):
            trainer(config, tmp_path)


def test_masks_that_stay_are_asked_for_by_an_end_of_zero(tmp_path: Path) -> None:
    kept = Kept()
    run = trainer(small_config("method=svite", "method.weights.update_end_iterations=0"), tmp_path, None, kept)
    assert run.run()["mask_updates"] == 0
    assert len(kept.of("masks")) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.optimizer=adamv", "recipe.optimizer=adamv: timm has no such optimizer; nearest: adam"),
        ("method.weights.target=no.such.Thing", r"no.such.Thing: cannot be imported \(No module named 'no'\)"),
        ("method.weights.target=repro.errors.UserError", "repro.errors.UserError: not a repro.methods.base.MethodPart"),
    ],
)
def test_names_that_only_torch_can_check_are_refused_before_training(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        trainer(small_config("method=svite", override), tmp_path)


def test_growth_by_momentum_needs_an_optimizer_that_has_one(tmp_path: Path) -> None:
    config = small_config(*METHODS["svite momentum"], "recipe.optimizer=adagrad")
    with pytest.raises(UserError, match=r"recipe\.optimizer has no first moment; use adamw"):
        trainer(config, tmp_path)
