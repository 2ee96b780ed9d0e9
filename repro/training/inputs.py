"""What a run reads before training: its data, and what it takes over from the finished run that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from repro.config import GENERATED, PRETRAINED, Config
from repro.config.costs import measured_token_options
from repro.data.fingerprint import is_same_data
from repro.data.layouts import ARCHIVES
from repro.data.preflight import changes_since
from repro.data.splits import Splits, load_splits
from repro.errors import UserError
from repro.models.pretrained import published_model
from repro.runs.record import Record
from repro.training import checkpoint


@dataclass(frozen=True)
class Inputs:
    """The data of a run, its initial weights (None: random) and the token keep rates of another run, if any."""

    splits: Splits
    weights: dict[str, Any] | None
    keep_rates: tuple[float, ...] | None


def load_inputs(record: Record, config: Config, device: torch.device) -> Inputs:
    """Load the inputs of a run, with weights on `device`.

    Raises `UserError` if the data do not fit the config or differ from those that the run has already trained on, or
    if the run that this one starts from is not finished or its weights are lost.
    """
    if any(record.checkpoint_dir.glob("update-*.pt")):
        splits = load_trained_splits(record, config)
    else:
        splits = load_splits(config.data, config.recipe, config.model)
    origin, keep_rates = record.starts_from(), None
    if origin is not None:
        _check_origin_data(origin, config, splits)
    if origin is not None and config.method.tokens is not None and config.method.tokens.uses_recorded_keep_rates:
        keep_rates = _measured_keep_rates(origin)
        origin = origin.starts_from()  # both start from the same weights
    weights: dict[str, Any] | None = None
    if config.method.starts_from == PRETRAINED or (origin is None and keep_rates is not None):
        option, alternative = f"method.starts_from={PRETRAINED}", "use method.starts_from=dense"
        backbone = config.backbone
        weights = published_model(backbone.timm_name, config.model, backbone.paper, option, alternative).state_dict()
    elif origin is not None:
        weights = _weights_of(origin, config.weights_after, device)
    return Inputs(splits, weights, keep_rates)


def load_trained_splits(record: Record, config: Config) -> Splits:
    """Load the data that a run was trained on. Raises `UserError` if `data.root` contains other data."""
    trained_on = record.trained_on()
    splits = load_splits(config.data, config.recipe, config.model, trained_on)
    if trained_on is not None and not is_same_data(trained_on, splits.fingerprint):
        raise UserError(
            f"{record.path}: was trained on data of fingerprint {trained_on}, the data are now {splits.fingerprint}"
            f"{_changes(config, trained_on) or ''}; restore the data, or remove that folder to start again"
        )
    return splits


def _changes(config: Config, trained_on: str) -> str | None:
    """Return how the data differ from those of a training, in parentheses; empty if it is not known.

    Returns None if they are the same, apart from a few files that have become unreadable.
    """
    if config.data.name in (*ARCHIVES, *GENERATED):
        return ""
    changes = changes_since(config.data, config.model, trained_on)
    return f" ({changes})" if changes else changes


def _check_origin_data(origin: Record, config: Config, splits: Splits) -> None:
    """Raise `UserError` if a run and the one that it starts from use different versions of the same data set."""
    trained_on = origin.trained_on()
    if origin.about().get("data", {}).get("name") != config.data.name:
        return
    if trained_on is None or is_same_data(trained_on, splits.fingerprint):
        return
    changes = _changes(config, trained_on)
    if changes is not None:
        raise UserError(
            f"starts from {origin.path}, which was trained on other data (fingerprint {trained_on}) than those in "
            f"data.root={config.data.root} ({splits.fingerprint}){changes}; set data.root to "
            "the data of that training, or choose another folder of runs"
        )


def _measured_keep_rates(origin: Record) -> tuple[float, ...]:
    """Return the mean keep rates measured by a finished run."""
    options = measured_token_options(origin.config().method, [origin.result() or {}])
    if options is None:
        raise UserError(f"takes its keep rates from {origin.path}, which has not measured any; launch that row first")
    return tuple(options["keep_rates"])


def _weights_of(origin: Record, after: float, device: torch.device) -> dict[str, Any]:
    """Return the final weights of a finished run, or those after the fraction `after` of its updates."""
    result = origin.result()
    if result is None:
        raise UserError(f"starts from the weights of {origin.path}, which is not finished; launch that row first")
    if after < 1:
        update = max(1, round(after * result["updates"]))
        path = checkpoint.weights_path(origin.checkpoint_dir, update)
    else:
        path = checkpoint.update_path(origin.checkpoint_dir, result["updates"])
    saved = checkpoint.load(path, device)
    if saved is not None:
        weights: dict[str, Any] = saved["model"]
        return weights
    url = origin.provenance().get("pulled_from")
    if after < 1 and not url:
        raise UserError(
            f"starts from the weights of {origin.path} after update {update}, which were not saved; remove that folder "
            f"and launch that row with run.keep_weights_after={after:g}"
        )
    cause = (
        f"was pulled without its weights ({url})"
        if url
        else "is finished, but its last checkpoint is missing or damaged"
    )
    raise UserError(
        f"starts from the weights of {origin.path}, which {cause}; copy its checkpoint/ from the machine that trained "
        "it, or remove that folder and launch that row"
    )
