"""The loop: batches, schedules, failures, evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trainings import WORLD, metrics, splits_of, tensors, tiny, trainer

from repro.training.evaluation import evaluate
from repro.training.loop import RunFailed


def test_accumulated_micro_batches_are_the_global_batch(tmp_path: Path) -> None:
    # No mixing and no dropping of paths, which are drawn per micro-batch: then only rounding differs.
    same = ["recipe.mixup=0", "recipe.cutmix=0", "recipe.drop_path=0", "recipe.optimizer=sgd", "method=svite"]
    whole = trainer(tiny(*same), tmp_path / "whole")
    parts = trainer(tiny(*same, "recipe.micro_batch=16"), tmp_path / "parts")
    assert (whole.loader.accumulate, parts.loader.accumulate) == (1, 4)
    assert (whole.run()["accumulation_steps"], parts.run()["accumulation_steps"]) == (1, 4)
    expected, got = tensors(whole.state.model.state_dict()), tensors(parts.state.model.state_dict())
    for name, tensor in expected.items():
        torch.testing.assert_close(tensor, got[name], atol=1e-5, rtol=1e-4)


def test_learning_rate_warms_up_and_ends_at_the_cosines_floor(tmp_path: Path) -> None:
    config = tiny("run.log_every_updates=1", "recipe.epochs=5", "data.limit_train=128")
    run = trainer(config, tmp_path)
    run.run()
    rates = [line["learning_rate"] for line in metrics(tmp_path, config) if line["kind"] == "train"]
    assert len(rates) == 10
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) <= config.recipe.peak_lr
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_a_loss_that_is_not_finite_fails_with_its_reason(tmp_path: Path) -> None:
    run = trainer(tiny("recipe.clip_grad_norm=null"), tmp_path)
    with torch.no_grad():
        run.state.model.head.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(RunFailed, match=r"the loss is not finite \(nan\) at update 4 of 8"):
        run.run()


def test_gradients_that_are_not_numbers_fail_a_mask_update(tmp_path: Path) -> None:
    run = trainer(tiny("method=svite", "run.log_every_updates=100"), tmp_path)
    with torch.no_grad():
        run.state.model.head.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(RunFailed, match=r"mask update after update 1: a score is not a number"):
        run.run()


def test_last_and_best_are_told_apart(tmp_path: Path) -> None:
    config = tiny("recipe.epochs=4", "data.limit_train=128")
    result = trainer(config, tmp_path).run()
    evaluations = [line for line in metrics(tmp_path, config) if line["kind"] == "eval"]
    accuracies = [line["top1_pct"] for line in evaluations]
    assert result["top1_last_pct"] == accuracies[-1]
    assert result["top1_best_pct"] == max(accuracies)
    assert accuracies[int(result["top1_best_epoch"] or 0) - 1] == max(accuracies)
    assert accuracies.index(max(accuracies)) + 1 == result["top1_best_epoch"]


def test_evaluation_counts_every_image_once() -> None:
    class Fixed(torch.nn.Module):
        """Always says class 3, then 1, 2, 0, 4."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(len(images), 10)
            scores[:, [3, 1, 2, 0, 4]] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
            return scores

    images = torch.zeros(10, 1, 8, 8)
    labels = torch.arange(10)
    found = evaluate(Fixed(), [(images[:7], labels[:7]), (images[7:], labels[7:])], WORLD)
    assert (found.top1_pct, found.top5_pct) == (10.0, 50.0)


def test_ema_follows_the_weights_and_is_as_sparse(tmp_path: Path) -> None:
    run = trainer(tiny("method=svite", "method.sparsity=0.7", "recipe.ema_decay=0.999999"), tmp_path)
    # 1.5 million published iterations in 8 updates: the half-life stays the same share of the training.
    assert run.state.training.ema is not None
    assert run.state.training.ema.decay == pytest.approx(0.999999 ** (600 * 1281167 / 512 / 8), rel=1e-4)
    run.run()
    averaged = dict(run.state.training.ema.module.named_parameters())
    for name, parameter in run.state.model.named_parameters():
        if parameter.dim() in (2, 4):
            assert torch.all((averaged[name] == 0) >= (parameter == 0)), name
    assert any(not torch.equal(averaged[name], p) for name, p in run.state.model.named_parameters())


def test_splits_fit_the_loader() -> None:
    config = tiny()
    splits = splits_of(config)
    assert (len(splits.train), len(splits.test)) == (256, 128)
