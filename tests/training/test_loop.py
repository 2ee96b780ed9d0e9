"""The loop: batches, schedules, failures, evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import Kept, small_config, splits_of, trainer

from repro.interruption import Interrupted
from repro.training import checkpoint
from repro.training.accuracy import Accuracy, count_correct
from repro.training.loop import RunFailed


def test_accumulated_micro_batches_are_the_global_batch(tmp_path: Path) -> None:
    # No mixing and no dropping of paths, which are drawn per micro-batch: then only rounding differs.
    same = ["recipe.mixup=0", "recipe.cutmix=0", "recipe.drop_path=0", "method=svite"]
    same += ["recipe.optimizer=sgd", "recipe.momentum=0.9"]
    whole = trainer(small_config(*same, "recipe.micro_batch=32"), tmp_path / "whole")
    parts = trainer(small_config(*same, "recipe.micro_batch=8"), tmp_path / "parts")
    assert (whole.loader.accumulate, parts.loader.accumulate) == (1, 4)
    assert (whole.run()["accumulation_steps"], parts.run()["accumulation_steps"]) == (1, 4)
    torch.testing.assert_close(whole.state.model.state_dict(), parts.state.model.state_dict(), atol=1e-5, rtol=1e-4)


def test_learning_rate_warms_up_and_ends_at_the_cosines_floor(tmp_path: Path) -> None:
    config, kept = small_config("run.log_every_updates=1", "recipe.epochs=5"), Kept()
    trainer(config, tmp_path, kept=kept).run()
    rates = [entry["learning_rate"] for entry in kept.of("train")]
    assert len(rates) == 20
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) <= config.recipe.peak_lr
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_a_loss_that_is_not_finite_fails_with_its_reason(tmp_path: Path) -> None:
    run = trainer(small_config("recipe.clip_grad_norm=null"), tmp_path)
    with torch.no_grad():
        run.state.model.head.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(RunFailed, match=r"the loss is not finite \(nan\) at update 2 of 12"):
        run.run()


def test_last_and_best_are_told_apart(tmp_path: Path) -> None:
    kept = Kept()
    result = trainer(small_config("recipe.epochs=4"), tmp_path, kept=kept).run()
    accuracies = [entry["top1_pct"] for entry in kept.of("eval")]
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
    batches = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    found = Accuracy.from_totals(count_correct(Fixed(), batches, torch.device("cpu")))
    assert (found.top1_pct, found.top5_pct) == (10.0, 50.0)


def test_ema_follows_the_weights_and_is_as_sparse(tmp_path: Path) -> None:
    run = trainer(small_config("method=svite", "method.sparsity=0.7", "recipe.ema_decay=0.999999"), tmp_path)
    # 1.5 million published iterations in 8 updates: the half-life stays the same share of the training.
    assert run.state.optimization.ema is not None
    assert run.state.optimization.ema.decay == pytest.approx(0.999999 ** (600 * 1281167 / 512 / 12), rel=1e-4)
    run.run()
    averaged = dict(run.state.optimization.ema.module.named_parameters())
    for name, parameter in run.state.model.named_parameters():
        if parameter.dim() in (2, 4):
            assert torch.all((averaged[name] == 0) >= (parameter == 0)), name
    assert any(not torch.equal(averaged[name], p) for name, p in run.state.model.named_parameters())


def test_splits_fit_the_loader() -> None:
    config = small_config()
    splits = splits_of(config)
    assert (len(splits.train), len(splits.test)) == (128, 64)


def test_a_stopped_run_has_the_time_since_its_last_log_entry(tmp_path: Path) -> None:
    run = trainer(small_config("run.log_every_updates=1000"), tmp_path, stop_at=1)
    with pytest.raises(Interrupted):
        run.run()
    saved = checkpoint.load_latest(tmp_path, torch.device("cpu"))
    assert saved is not None
    assert saved["update"] == 1
    assert saved["wall_s"] > 0
