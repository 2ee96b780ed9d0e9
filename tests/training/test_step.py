"""How a step computes: checkpointed, compiled, fused. What it computes stays the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from needs import needs
from small_runs import METHODS, ON_TOKENS, RESNET, SHORT, Kept, Weights, config_of, same, small_config, trainer
from torch import nn

from repro.config.compose import compose
from repro.errors import UserError
from repro.interruption import Interrupted
from repro.models.activation_checkpointing import CheckpointedBlocks, checkpoint_activations
from repro.models.compiling import compile_blocks, eager_if_hooked
from repro.models.token_dropping import DroppingBlocks

CHECKPOINTED = "run.checkpoint_activations=true"
COMPILED = "run.compile=true"
needs_compiler = needs("g++", shutil.which("g++"), "REPRO_REQUIRE_COMPILER")


@pytest.mark.parametrize("name", ["dense", "svite", "s2vite", "svite_plus", "spartan", *ON_TOKENS])
def test_checkpointing_changes_no_bit_and_no_signature(name: str, tmp_path: Path, dense: Weights) -> None:
    """Through masks, droppers, recorded activations and dropped paths, with accumulation."""
    plain, checkpointed = config_of(name, "recipe.drop_path=0.3"), config_of(name, "recipe.drop_path=0.3", CHECKPOINTED)
    assert plain.signature == checkpointed.signature
    states, logs = [], []
    for config in (plain, checkpointed):
        kept = Kept()
        run = trainer(config, tmp_path / str(config.run.checkpoint_activations), dense, kept)
        run.run()
        states.append(run.state.state_dict())
        logs.append([kept.of(kind) for kind in ("train", "eval", "masks")])
        blocks = run.state.model.blocks
        if isinstance(blocks, DroppingBlocks):
            assert blocks.checkpointing is config.run.checkpoint_activations
        else:
            assert isinstance(blocks, CheckpointedBlocks) is config.run.checkpoint_activations
    for key in states[0].keys() - {"wall_s"}:
        assert same(states[0][key], states[1][key]), key
    assert logs[0] == logs[1]


def test_checkpointed_blocks_keep_only_what_goes_in() -> None:
    """A block's inner activations are freed after the forward pass, and computed again."""
    calls: list[int] = []

    class Block(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            calls.append(len(values))
            return (values * 2).tanh().exp()

    model = nn.Module()
    model.blocks = nn.Sequential(Block(), Block())
    saved: list[int] = []
    checkpoint_activations(model)
    values = torch.ones(3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(1) or tensor, lambda tensor: tensor):
        out = model.blocks(values)
    assert saved == [1, 1]
    assert calls == [3, 3]
    out.sum().backward()
    assert calls == [3, 3, 3, 3]
    with torch.no_grad():
        model.blocks(values)
    assert len(calls) == 6


def test_a_model_that_cannot_be_checkpointed_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"run\.checkpoint_activations=true: backbone=resnet50 has no transformer"):
        compose([*RESNET, *SHORT, CHECKPOINTED])


@pytest.mark.parametrize(
    ("override", "is_fused"), [(("adamw", None), True), (("sgd", 0.9), True), (("lamb", None), False)]
)
def test_torchs_own_optimizers_update_all_weights_in_one_pass(
    override: tuple[str, float | None], is_fused: bool, tmp_path: Path
) -> None:
    name, momentum = override
    config = small_config(f"recipe.optimizer={name}", f"recipe.momentum={'null' if momentum is None else momentum}")
    run = trainer(config, tmp_path)
    assert bool(run.state.optimization.optimizer.defaults.get("fused")) is is_fused
    run.update(iter(run.loader.batches(0)))


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own reading
def test_a_compiled_run_resumes_bit_for_bit_and_keeps_to_the_eager_one(tmp_path: Path) -> None:
    """S2ViTE watches activations in updates that move masks: those are eager, and choose the same units."""
    short = (*METHODS["s2vite"], "recipe.epochs=2", "method.weights.update_interval_iterations=200000")
    eager = trainer(small_config(*short), tmp_path / "eager")
    eager.run()
    straight = trainer(small_config(*short, COMPILED), tmp_path / "straight")
    straight.run()
    with pytest.raises(Interrupted):
        trainer(small_config(*short, COMPILED), tmp_path / "pieces", stop_at=3).run()
    resumed = trainer(small_config(*short, COMPILED), tmp_path / "pieces")
    resumed.run()
    left, right = straight.state.state_dict(), resumed.state.state_dict()
    for key in left.keys() - {"wall_s"}:
        assert same(left[key], right[key]), key
    assert same(eager.state.parts[0].state_dict(), straight.state.parts[0].state_dict())
    plain, compiled = eager.state.model.state_dict(), straight.state.model.state_dict()
    assert plain.keys() == compiled.keys()
    assert not same(plain, compiled), "something was compiled"
    torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4)


def test_a_block_that_is_watched_runs_eagerly() -> None:
    model = nn.Module()
    model.blocks = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    compile_blocks(model, torch.device("cpu"), backend="eager")
    values, seen = torch.ones(1, 2), []
    expected = model.blocks(values)
    handle = model.blocks[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with eager_if_hooked(model):
        assert torch.equal(model.blocks(values), expected)
    assert len(seen) == 1
    handle.remove()
    with eager_if_hooked(model):
        model.blocks(values)
    assert len(seen) == 1


def test_nothing_to_compile_with_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.models.compiling.shutil.which", lambda _: None)
    with pytest.raises(UserError, match=r"run\.compile=true: found no C\+\+ compiler"):
        compile_blocks(nn.Linear(2, 2), torch.device("cpu"))
    monkeypatch.setattr("repro.models.compiling.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="Triton is not installed"):
        compile_blocks(nn.Linear(2, 2), torch.device("cuda"))
