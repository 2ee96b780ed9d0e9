"""A device that runs out of memory: one line with advice, and the same run resumes with less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import SHORT, VIT
from torch import Tensor

from repro.cli.main import main
from repro.config import Config
from repro.config.compose import compose
from repro.runs.record import Record, record_for
from repro.training.attempt import EXIT_DONE, EXIT_FAILED, execute
from repro.training.out_of_memory import out_of_memory_advice
from repro.training.step import Step

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.65 GiB"
HOST = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def new_record(root: Path, *overrides: str) -> tuple[Record, Config]:
    config = compose([*VIT, *SHORT, "run.checkpoint_every_s=0.000001", *overrides])
    record = record_for(root, config, "table1", "deit_tiny/dense")
    record.create(config, "table1", "deit_tiny/dense")
    return record, config


@pytest.mark.parametrize(
    ("error", "size"),
    [(torch.OutOfMemoryError(CUDA), " (an allocation of 2.50 GiB failed)"), (RuntimeError(HOST), "")],
)
def test_the_run_fails_in_one_line_and_resumes_with_a_smaller_micro_batch(
    error: Exception, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, config = new_record(tmp_path)
    run = Step.run

    def full_after_five(self: Step, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        if self.state.update == 5:
            raise error
        run(self, batches)

    with monkeypatch.context() as small_device:
        small_device.setattr(Step, "run", full_after_five)
        assert execute(record.path) == EXIT_FAILED
    advice = (
        f"cpu is out of memory{size}: launch it again with a lower recipe.micro_batch (now 16), a lower "
        "recipe.eval_batch (now 360) if it happened in an evaluation, or run.checkpoint_activations=true; it resumes "
        "from its last checkpoint before update 6 (a row of a table: with --retry)"
    )
    assert (record.status().state, record.status().reason) == ("failed", advice)
    out = capsys.readouterr()
    assert f"failed: {advice}" in out.out
    assert "Traceback" not in out.out + out.err

    same, smaller = new_record(tmp_path, "recipe.micro_batch=8", "run.checkpoint_activations=true")
    assert same.path == record.path
    assert smaller.signature == config.signature
    lines: list[str] = []
    assert execute(record.path, log=lines.append) == EXIT_DONE
    assert "resumed from update 5" in lines[0]
    assert (record.result() or {})["accumulation_steps"] == 4


def test_the_micro_batch_of_a_method_with_its_own_recipe_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, _ = new_record(tmp_path, "method=dense")
    assert execute(dense.path, log=lambda _: None) == EXIT_DONE
    config = compose([*VIT, *SHORT, "method=ia_red2", "method.tokens.interpreters=1"])
    record = record_for(tmp_path, config, "table1", "deit_tiny/ia_red2")
    record.create(config, "table1", "deit_tiny/ia_red2", starts_from=dense.path)

    def full(self: Step, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(Step, "run", full)
    assert execute(record.path, log=lambda _: None) == EXIT_FAILED
    assert "a lower method.finetune.changes.micro_batch (now 16)" in (record.status().reason or "")


def test_the_micro_batch_of_a_model_with_batch_norm_is_said_to_be_another_run() -> None:
    config = compose(["backbone=resnet50", "method=dense"])
    advice = out_of_memory_advice(torch.OutOfMemoryError(CUDA), config, torch.device("cpu"), 5)
    assert advice.endswith(
        "or with a lower recipe.micro_batch (now 64): a new run, because batch norm averages over it"
    )
    assert "a lower recipe.eval_batch (now 360) if it happened in an evaluation: it resumes" in advice
    assert "checkpoint_activations" not in advice, "not for ResNet"


@pytest.mark.parametrize(
    ("error", "first"),
    [(torch.OutOfMemoryError(f"{CUDA}\nmore"), CUDA), (RuntimeError(HOST), HOST), (MemoryError(), "")],
)
def test_a_command_that_runs_out_of_memory_says_so_in_one_line(
    error: Exception, first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(options: object) -> int:
        raise error

    monkeypatch.setattr("repro.cli.list.run", full)
    with pytest.raises(SystemExit) as ended:
        main(["list"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"repro: out of memory: {first or 'an allocation failed'}; set a lower --batch (repro list --help)\n"
    )


def test_another_error_of_a_command_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: object) -> int:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr("repro.cli.list.run", fails)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        main(["list"])
