"""Spartan, IMP and Top-KAST: forward, gradient, schedule, freeze, by hand and against autograd through soft_topk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, SPARTAN, Kept, small_config, trainer
from soft_topk_reference import soft_topk
from torch import Tensor

from repro.config import Config
from repro.config.compose import compose
from repro.config.schedule import mask_schedule
from repro.counting.schedule import GradualSchedule, Length
from repro.errors import UserError
from repro.inference.export import export, load_exported
from repro.interruption import Interrupted
from repro.methods.build import build_parts
from repro.methods.weights import dense_parameters as dense_trained
from repro.methods.weights import spartan as spartan_module
from repro.methods.weights.dense_parameters import DenseToSparse
from repro.methods.weights.imp import IMP
from repro.methods.weights.masks import prunable_weights
from repro.methods.weights.spartan import Spartan
from repro.models.backbone import build_model

LENGTH = Length(4, 10, 32)  # 40 updates: the ramp ends at 8, masks freeze at 32


def part_of(config: Config, double: bool = True) -> tuple[torch.nn.Module, Any]:
    """A small model in double precision with its part."""
    model = build_model(config.model, 0.0, 1)
    model = model.double() if double else model
    (part,) = build_parts(config, model, LENGTH)
    return model, part


def spartan(*overrides: str) -> Config:
    return small_config("method=spartan", *SPARTAN, *overrides)


@pytest.mark.parametrize(
    ("update", "density", "beta"),
    [(0, 1.0, 1.0), (4, 0.75, 1 + 19 / 8), (8, 0.5, 5.75), (16, 0.5, 10.5), (32, 0.5, 20)],
)
def test_density_and_sharpness_by_update(update: int, density: float, beta: float) -> None:
    schedule = mask_schedule(spartan(), LENGTH)
    assert isinstance(schedule, GradualSchedule)
    assert schedule.density(update, 0.5) == pytest.approx(density)
    assert schedule.linear_ramp(update, 1.0, 20.0) == pytest.approx(beta)
    assert (schedule.last, schedule.is_due(32), schedule.is_due(33)) == (32, True, False)


@pytest.mark.parametrize(("block", "factor"), [("entry", 1), ("4x4", 4)])
def test_sharpness_grows_with_the_root_of_the_blocks_area(block: str, factor: int) -> None:
    _, part = part_of(spartan(f"method.weights.block={block}"))
    part.select_support(32)
    assert part.beta == pytest.approx(20 * factor)


@pytest.mark.parametrize("size", [16, 32])
def test_the_records_sharpness_of_blocks_is_320_and_640(size: int) -> None:
    config = compose(["backbone=vit_base", f"method=spartan_block{size}"])
    assert config.method.weights is not None
    assert config.method.weights.options["block"] == f"{size}x{size}"
    assert config.method.weights.options["beta_max"] * math.sqrt(size**2) == {16: 320, 32: 640}[size]


@pytest.mark.parametrize("block", ["entry", "4x4", "neuron"])
@pytest.mark.parametrize("distribution", ["global", "uniform"])
@pytest.mark.parametrize("cost", ["params", "macs"])
def test_the_gradient_is_autograds_through_the_soft_mask(block: str, distribution: str, cost: str) -> None:
    """dL/dtheta for L = sum r * theta * m(|theta|), and forward = that on the support."""
    words = (
        f"method.weights.block={block}",
        f"method.weights.distribution={distribution}",
        f"method.weights.cost={cost}",
    )
    model, part = part_of(spartan(*words))
    part.select_support(20)
    weights = prunable_weights(model)
    source = torch.Generator().manual_seed(5)
    by_used = {name: torch.randn(part.dense[name].shape, generator=source).double() for name in part.dense}
    theta = {name: part.dense[name].clone().requires_grad_() for name in part.dense}
    loss = torch.zeros((), dtype=torch.float64)
    for scope in part.scopes(20):
        values = torch.cat([group.total({n: theta[n].abs() for n in group.layers}) for group in scope.groups])
        costs = torch.cat(
            [torch.as_tensor(group.costs, dtype=torch.float64).expand(group.count) for group in scope.groups]
        )
        masks = soft_topk(values, costs, scope.budget, part.beta).split([group.count for group in scope.groups])
        for group, mask in zip(scope.groups, masks, strict=True):
            for name in group.layers:
                used = theta[name] * group.expand(mask, name)
                loss = loss + (by_used[name] * used).sum()
                support = part.masks[name]
                torch.testing.assert_close(weights[name].detach(), used.detach() * support, rtol=1e-6, atol=1e-9)
    loss.backward()
    for name, weight in weights.items():
        weight.grad = by_used[name].clone() if name in by_used else None
    part.after_backward(21)
    for name, expected in theta.items():
        assert torch.equal(weights[name].detach(), expected.detach()), "the optimizer is given the dense weights"
        torch.testing.assert_close(weights[name].grad, expected.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("method", "outside"), [("imp", False), ("top_kast", True)])
def test_hard_masks_forward_and_what_goes_back(method: str, outside: bool) -> None:
    model, part = part_of(small_config(f"method={method}", "method.sparsity=0.5"))
    part.select_support(20)
    for name, weight in prunable_weights(model).items():
        assert torch.equal(weight.detach(), part.dense[name] * part.masks[name])
        weight.grad = torch.ones_like(weight)
    part.after_backward(21)
    for name, weight in prunable_weights(model).items():
        assert weight.grad is not None
        assert torch.equal(weight.grad, torch.ones_like(weight) if outside else part.masks[name].to(weight.dtype))


@pytest.mark.parametrize("distribution", ["uniform", "erk"])
@pytest.mark.parametrize(("block", "cost"), [("entry", 1), ("4x4", 16)])
def test_what_a_layer_leaves_of_its_share_is_the_next_ones(distribution: str, block: str, cost: int) -> None:
    words = (f"method.weights.distribution={distribution}", f"method.weights.block={block}")
    _, part = part_of(spartan(*words, "method.sparsity=0.6"))
    part.select_support(20)
    budgets = [scope.budget for scope in part.scopes(20)]
    spent = [int(part.masks[scope.groups[0].layers[0]].sum()) for scope in part.scopes(20)]
    for layer in range(1, len(budgets) + 1):
        assert 0 <= sum(budgets[:layer]) - sum(spent[:layer]) < cost + 1e-6
    dense = part.dense_model.params - sum(part.dense[name].numel() for name in part.dense)
    assert 0 <= 0.4 * part.dense_model.params - dense - sum(spent) < cost + 1e-6


def test_a_global_target_of_macs_is_that_of_the_whole_model() -> None:
    _, part = part_of(spartan("method.weights.cost=macs", "method.weights.distribution=global", "method.sparsity=0.6"))
    part.select_support(32)
    dense = part.dense_model
    spent = dense.attention_macs
    for layer in dense.layers:
        spent += layer.uses * (int(part.masks[layer.name].sum()) if layer.name in part.dense else layer.size)
    # The mask stops before the entry that would exceed the target, and an entry costs at most one MAC for each token.
    assert 0 <= 0.4 * dense.macs - spent <= max(layer.uses for layer in dense.layers)


def test_every_rank_cuts_where_the_first_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another device may add up in another order: whatever this rank has found, the first rank's numbers are used.
    _, part = part_of(spartan())
    first: dict[int, list[float]] = {2: [0.05, 0.0], 3: [7.0, 0.05, -1.0], 1: [0.25]}
    for module in (dense_trained, spartan_module):
        monkeypatch.setattr(module, "broadcast_from_rank0", lambda numbers, _: first[len(numbers)])
    part.select_support(20)
    for name, dense in part.dense.items():
        assert torch.equal(part.masks[name], dense.abs() > 0.05)
    assert part.soft[0].numbers == (7.0, 0.05, -1.0)
    for name, weight in part.parameters.items():
        value = part.dense[name].abs()
        soft = torch.sigmoid(part.beta * (value - 0.05) - 1.0) * (value > 0.05)
        torch.testing.assert_close(weight.detach(), part.dense[name] * soft)
    gradients = {name: torch.ones_like(weight) for name, weight in part.dense.items()}
    assert part.scope_means(gradients) == {0: 0.25}


def test_a_target_below_what_stays_dense_is_refused_at_once() -> None:
    config = spartan()
    model = build_model(config.model, 0.0, 1)
    schedule = mask_schedule(config, LENGTH)
    assert isinstance(schedule, GradualSchedule)
    options = {"distribution": "global", "block": "entry", "cost": "params", "dense_model": config.model.dense_model()}
    with pytest.raises(UserError, match=r"method.sparsity=0.999: parts that are never pruned hold"):
        IMP(model, sparsity=0.999, schedule=schedule, seed=0, **options)


def test_the_support_is_the_largest_of_all_layers_and_its_size_is_exact() -> None:
    model, part = part_of(spartan())
    part.select_support(20)
    whole = part.dense_model
    kept = math.floor(0.5 * whole.params - whole.vector_params)
    flat = torch.cat([part.dense[name].abs().flatten() for name in part.dense])
    expected = torch.zeros(len(flat), dtype=torch.bool)
    expected[flat.sort(descending=True, stable=True).indices[:kept]] = True
    assert torch.equal(torch.cat([part.masks[name].flatten() for name in part.dense]), expected)
    assert sum(int(w.count_nonzero()) for w in prunable_weights(model).values()) == kept


def test_blocks_leave_the_first_and_the_last_layer_dense() -> None:
    model, part = part_of(spartan("method.weights.block=4x4"))
    part.select_support(20)
    weights = prunable_weights(model)
    for name in ("patch_embed.proj", "head"):
        assert name not in part.dense
        assert weights[name].all()
    for name in part.dense:
        blocks = (weights[name].detach() != 0).view(weights[name].shape[0] // 4, 4, -1, 4)
        assert torch.equal(blocks.any(3).any(1), blocks.all(3).all(1)), "whole blocks only"


def test_finished_neurons_leave_the_exported_model(tmp_path: Path) -> None:
    config = small_config(*METHODS["spartan neuron"])
    run = trainer(config, tmp_path)
    run.run()
    weights = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    description = export(config, weights, tmp_path / "out", {})
    assert description["parameters"]["stored"] < description["parameters"]["dense"]
    images = torch.randn(3, 1, 8, 8)
    small = load_exported(tmp_path / "out")
    torch.testing.assert_close(small(images), run.state.model.eval()(images), rtol=1e-4, atol=1e-5)
    (part,) = run.state.parts
    assert isinstance(part, Spartan)
    heads = [
        int(group.total({n: part.masks[n].float() for n in group.layers}).count_nonzero()) for group in part.groups
    ]
    assert [*zip(description["heads"], description["neurons"], strict=True)] == [
        (max(1, heads[0]), max(1, heads[1])), (max(1, heads[2]), max(1, heads[3])),
    ]  # fmt: skip


@pytest.mark.parametrize("frozen", ["soft", "hard"])
def test_after_the_freeze_the_mask_stays_and_weights_go_on(frozen: str, tmp_path: Path) -> None:
    run = trainer(spartan(f"method.weights.frozen_mask={frozen}"), tmp_path)
    (part,) = run.state.parts
    assert isinstance(part, Spartan)
    supports: list[Tensor] = []
    used: list[Tensor] = []
    name = "blocks.0.mlp.fc1"
    while run.state.update < 12:
        batches = iter(run.loader.batches(run.state.update // 4, run.state.update % 4))
        run.update(batches)
        supports.append(part.masks[name].clone())
        used.append(prunable_weights(run.state.model)[name].detach().clone())
    assert part.schedule.last == 9
    assert all(torch.equal(mask, supports[-1]) for mask in supports[8:])
    assert not torch.equal(used[9], used[11])
    factors = (used[11] / part.dense[name])[supports[-1]]
    if frozen == "hard":
        torch.testing.assert_close(factors, torch.ones_like(factors))
    else:
        assert ((factors > 0) & (factors < 1)).all()
        assert float(factors.std()) > 0


def test_only_a_model_that_is_sparse_enough_is_the_best(tmp_path: Path) -> None:
    kept = Kept()
    run = trainer(spartan("method.weights.density_ramp_fraction=0.75"), tmp_path, kept=kept)
    (part,) = run.state.parts
    assert [part.is_at_target(update) for update in (4, 8, 9)] == [False, False, True]
    result = run.run()
    assert result["top1_best_epoch"] == 3
    assert len(kept.of("eval")) == 3


def test_the_mask_history_of_a_long_training_stays_short() -> None:
    config = spartan()
    model = build_model(config.model, 0.0, 1)
    (part,) = build_parts(config, model, Length(5005, 90, 256))
    assert isinstance(part, DenseToSparse)
    interval, last = part.history_interval, part.schedule.last
    assert last / 200 <= interval < last / 200 + 1
    noted = []
    for update in (0, 1, interval - 1, interval, interval + 1, 2 * interval, last - 1, last):
        before = part.mask_updates
        part.select_support(update)
        noted += [update] * (part.mask_updates - before)
    assert noted == [interval, 2 * interval, last]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method.weights.beta_max=0.5"], "method.weights.beta_max=0.5: must be at least 1"),
        (["method.weights.block=3x5"], "method.weights.block=3x5: not known"),
        (["method.weights.cost=time"], "method.weights.cost=time: not known"),
    ],
)
def test_wrong_options_are_found_before_torch(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        spartan(*overrides)


def test_a_backbone_without_a_published_sharpness_asks_for_one() -> None:
    with pytest.raises(UserError, match=r"method\.weights\.beta_max: needs a value"):
        compose(["backbone=resnet50", "method=spartan", "backbone.training.beta_max=null"])


@pytest.mark.parametrize("method", ["spartan", "imp", "top_kast", "spartan_block16"])
def test_a_small_resnet_trains_resumes_and_ends_sparse(method: str, tmp_path: Path) -> None:
    words = ["backbone=resnet50", f"method={method}", "method.sparsity=0.5", "scale=smoke", "tracker=none"]
    words += [
        "model.blocks=[1,1,1,1]",
        "model.channels=[8,8,16,16]",
        "data.limit_train=64",
        "data.limit_test=32",
    ]
    words += ["recipe.epochs=3", "recipe.global_batch=16", "recipe.micro_batch=8", "run.device=cpu"]
    config = compose(words)
    run = trainer(config, tmp_path / "whole")
    result = run.run()
    for stop in (1, 5, 10, 11):
        with pytest.raises(Interrupted):
            trainer(config, tmp_path / "pieces", stop_at=stop).run()
    again = trainer(config, tmp_path / "pieces")
    assert {k: v for k, v in again.run().items() if k != "wall_s"} == {k: v for k, v in result.items() if k != "wall_s"}
    for name, value in run.state.model.state_dict().items():
        assert torch.equal(value, again.state.model.state_dict()[name]), name
    (part,) = run.state.parts
    assert isinstance(part, DenseToSparse)
    nonzero = sum(int(weight.count_nonzero()) for weight in prunable_weights(run.state.model).values())
    block = 256 if "block" in method else 1
    # Weights that are 0 by themselves (a zero that was never moved) are not there in a trained model.
    assert 0 <= 0.5 * part.dense_model.params - part.dense_model.vector_params - nonzero < block
