"""A residual network through the real loop: what batch norms remember is part of the weights, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import Weights, config_of, resnet_config, same, trainer
from torch import nn

from repro.inference.build import masked_model
from repro.methods.weights.masks import prunable_weights


@pytest.mark.parametrize("name", ["resnet svite", "resnet omp", "resnet gmp", "resnet tp"])
def test_the_trained_model_is_as_sparse_as_the_row_says(name: str, tmp_path: Path, dense_resnet: Weights) -> None:
    config = config_of(name)
    run = trainer(config, tmp_path, dense_resnet)
    run.run()
    weights = prunable_weights(run.state.model)
    size = sum(weight.numel() for weight in weights.values())
    assert [layer.name for layer in config.model.layers(0)] == list(weights)
    nonzero = sum(int(weight.count_nonzero()) for weight in weights.values())
    assert nonzero / size == pytest.approx(1 - config.method.sparsity, abs=0.02)


def running(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of what batch norms remember."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_the_average_has_the_average_of_what_batch_norms_saw(tmp_path: Path) -> None:
    run = trainer(resnet_config("method=dense"), tmp_path)
    ema = run.state.optimization.ema
    assert ema is not None
    saved = run.state.state_dict()
    assert "bn1.running_var" in saved["model"]
    assert "bn1.running_var" in saved["ema"]
    expected = running(ema.module)
    batches = iter(run.loader.batches(0, 0))
    for _ in range(4):
        run.update(batches)
        decay = ema.get_decay()
        for name, buffer in running(run.state.model).items():
            expected[name] = expected[name].lerp(buffer, 1 - decay) if buffer.is_floating_point() else buffer
    found = running(ema.module)
    for name, buffer in expected.items():
        torch.testing.assert_close(found[name], buffer, rtol=1e-5, atol=1e-7)
    assert int(found["bn1.num_batches_tracked"]) == 8, "two micro-batches an update"
    assert not torch.allclose(found["bn1.running_var"], running(run.state.model)["bn1.running_var"], rtol=1e-3)


def test_scoring_leaves_batch_norms_as_they_were(tmp_path: Path) -> None:
    run = trainer(resnet_config("method=dense"), tmp_path)
    before = {key: value.clone() for key, value in run.state.model.state_dict().items()}
    run.accumulate_gradients(5)
    assert same(before, dict(run.state.model.state_dict()))


def test_evaluation_uses_what_was_remembered_and_changes_nothing(tmp_path: Path) -> None:
    run = trainer(resnet_config("method=dense"), tmp_path)
    run.run()
    before = {key: value.clone() for key, value in run.state.model.state_dict().items()}
    accuracy = run.evaluator.accuracy(run.state.model)
    assert same(before, dict(run.state.model.state_dict()))
    finished = masked_model(run.config, before)
    assert not finished.training
    assert run.evaluator.accuracy(finished) == accuracy, "as it is loaded again from its weights"
    forgetful = {name: torch.zeros_like(value) if "running_mean" in name else value for name, value in before.items()}
    assert run.evaluator.accuracy(masked_model(run.config, forgetful)) != accuracy


def test_decay_and_momentum_are_the_recipes(tmp_path: Path) -> None:
    """SGD with Nesterov momentum; no weight decay on biases and norms."""
    run = trainer(resnet_config("method=dense"), tmp_path)
    optimizer = run.state.optimization.optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    names = {id(weight): name for name, weight in run.state.model.named_parameters()}
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"]) == (0.9, True)
        for weight in group["params"]:
            assert group["weight_decay"] == (1e-4 if weight.ndim > 1 else 0.0), names[id(weight)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
