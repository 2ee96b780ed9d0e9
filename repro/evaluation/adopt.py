"""Adopt third-party weights as evidence for a row: check them, evaluate them, and write a record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from repro.config import Config
from repro.config.groups import compose_groups
from repro.config.published_training import row_config
from repro.distributed import World
from repro.errors import UserError
from repro.evaluation.report import Progress, evaluate
from repro.evaluation.sources import ModelSource, from_file
from repro.evaluation.weights.row_checks import check_row, find_sparsity
from repro.runs.adopted import FILE, AdoptedWeights, RowCheck, WeightsFile, adopted_folder, write_adopted
from repro.runs.record import Record
from repro.tables.rows import Row, Table
from repro.training.weights_file import write_weights

DRAWS = 5  # default number of evaluations of a model that samples
AS_RELEASED = "as_released"  # option value with which a method behaves like its released code

_BEST_EPOCH = (
    "published accuracies are those of the best epoch, whereas this file holds the weights of {epoch}: part of the "
    "difference to the published value may come from that"
)


@dataclass(frozen=True)
class Candidate:
    """Weights that have passed the checks of a row.

    Attributes:
        source: the model with these weights, ready for evaluation.
        is_random: whether the model samples during evaluation, so that its accuracy is a mean over draws.
    """

    table: Table
    row: Row
    config: Config
    overrides: tuple[str, ...]
    source: ModelSource
    file: WeightsFile
    checks: tuple[RowCheck, ...]
    is_random: bool


class Adopted(NamedTuple):
    """A record of adopted weights, its folder, and whether it replaces an earlier one of the same file and settings."""

    folder: Path
    weights: AdoptedWeights
    is_replacement: bool


def check_weights(
    path: Path, table: Table, row: Row, config: Config, overrides: Sequence[str], origin: str, ema: bool = False
) -> Candidate:
    """Load a weights file into the row's model, and compare its zeros, heads and neurons with those the row plans.

    Raises `UserError` if the file cannot be read, or has another architecture or sparsity than the row; the message
    names a matching row, if there is one.
    """
    source = from_file(
        path, config, ema, advice=f"expected are those of {table.name} {row.id}; choose the row that they are of"
    )
    found = find_sparsity(source.model, config.model.layers(config.model.tokens))
    good, bad = check_row(found, config)
    if bad:
        faults = "; ".join(f"{one.what} {one.found} (planned {one.planned}, tolerance {one.tolerance})" for one in bad)
        fitting = [
            other.id
            for other in table.every_row
            if other.backbone == row.backbone and other != row and not other.reads_runs_of
            if _is_like(config, other_config := row_config(other, config.scale.name))
            if not check_row(found, other_config)[1]
        ]
        advice = f"it has those of {', '.join(fitting)}" if fitting else "adopt it for the row that it is of"
        raise UserError(f"{path}: not the weights of {table.name} {row.id}: {faults}; {advice}")
    about = source.about
    file = WeightsFile(path.name, about["file_sha256"], origin, about["weights_key"], about["is_ema"], about["epoch"])
    return Candidate(table, row, config, tuple(overrides), source, file, tuple(good), _is_random(source.model, config))


def _is_like(config: Config, other: Config) -> bool:
    return config.model == other.model and (config.method.tokens is None) == (other.method.tokens is None)


def _is_random(model: nn.Module, config: Config) -> bool:
    images = torch.zeros(1, *config.model.input_shape)
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        model(images)
        return not torch.equal(before, torch.get_rng_state())


def adopt(
    candidate: Candidate,
    root: Path,
    world: World,
    *,
    draws: int | None = None,
    batch: int | None = None,
    amp: str = "none",
    progress: Progress = lambda done, total: None,
) -> Adopted:
    """Evaluate a candidate on its data set and write its record under `root`.

    Must be called on every rank; only the first rank writes. A model that samples is evaluated `draws` times.
    """
    source, file = candidate.source, candidate.file
    count = (draws or DRAWS) if candidate.is_random else 1
    reports = [
        evaluate(replace(source, seed=seed), world, batch=batch, amp=amp, progress=progress) for seed in range(count)
    ]
    adopted = AdoptedWeights(
        table=candidate.table.name,
        row=candidate.row.id,
        scale=candidate.config.scale.name,
        file=file,
        checks=candidate.checks,
        data=reports[0]["data"],
        top1_by_draw_pct=tuple(report["top1_pct"] for report in reports),
        overrides=candidate.overrides,
        notes=tuple(_notes(candidate, count)),
        # Only the file name: the path is specific to the machine.
        evaluation={**reports[0], "model": {**reports[0]["model"], "file": file.name}},
    )
    chosen = ["--ema"] if file.is_ema and source.about["also_in_file"] else []
    folder = adopted_folder(root, adopted.table, adopted.row, file.sha256, [*candidate.overrides, *chosen])
    is_replaced = (folder / FILE).exists()
    if world.is_first:
        Record(folder).write_config(candidate.config, adopted.table, adopted.row)
        write_weights(Record(folder).weights_file, source.model.state_dict())
        write_adopted(folder, adopted)
    return Adopted(folder, adopted, is_replaced)


def _notes(candidate: Candidate, draws: int) -> Collection[str]:
    epoch = "the last epoch" if candidate.file.epoch is None else f"epoch {candidate.file.epoch + 1}"
    notes = [_BEST_EPOCH.format(epoch=epoch), *candidate.source.notes]
    if candidate.is_random:
        notes.append(f"the model samples in evaluation: the accuracy is a mean over {draws} draws")
    notes += [
        f"evaluated with {key}={value}; add {key}={AS_RELEASED} to evaluate as the released code does"
        for key, value in _token_options_as_released(candidate.config)
    ]
    if candidate.overrides:
        notes.append(f"evaluated with {' '.join(candidate.overrides)}")
    return notes


def _token_options_as_released(config: Config) -> list[tuple[str, Any]]:
    """Return the token options, as (key, value), for which the released code uses another value in evaluation."""
    tokens = config.method.tokens
    options: dict[str, Any] = {} if tokens is None else tokens.options
    return [
        (f"method.{key}", options[name])
        for key, values in compose_groups({"method": config.method.name}).method.get("choices", {}).items()
        if AS_RELEASED in values and (name := key.removeprefix("tokens.")) in options and options[name] != AS_RELEASED
    ]
