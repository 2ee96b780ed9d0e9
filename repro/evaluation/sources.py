"""Models to evaluate, from any source: a record, an export, a weights file, or timm."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import nn

from repro.config import Config, Data, Recipe
from repro.counting.geometry import Geometry, parse_geometry
from repro.errors import UserError, count_of, first_few
from repro.evaluation.finished_model import finished_weights
from repro.evaluation.weights.state_dict import StateDict, check_finite, load_weights, read_state_dict, weights_digest
from repro.files import sha256
from repro.inference.build import masked_model
from repro.inference.export import WEIGHTS, load_exported, read_description, reading_export
from repro.models.pretrained import published_model
from repro.runs.record import Record


@dataclass(frozen=True)
class ModelSource:
    """A model in evaluation mode, on the CPU, and how to preprocess its images.

    Attributes:
        data: the data set to evaluate on, normalised as in training.
        name: a short description.
        about: kind of source, location, and hash of the weights, as JSON values.
        seed: seed of training, for models that sample during evaluation.
        update: the training update that the weights are from, likewise.
        cpu_threads: number of threads if training ran on a CPU; 0 if unknown.
        classes: names of the training classes, in the order of the outputs; empty if unknown.
        notes: what a reader of the result has to know about the weights.
    """

    model: nn.Module
    geometry: Geometry
    data: Data
    recipe: Recipe
    name: str
    about: dict[str, Any]
    seed: int = 0
    update: int = 0
    cpu_threads: int = 0
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def from_record(record: Record, epoch: Literal["last", "best"]) -> ModelSource:
    """Load the model of a finished run after its last or best epoch. Raises `UserError` if it is missing."""
    config, about, result = record.config(), record.about(), record.result() or {}
    weights = finished_weights(record, epoch)
    update = int(result.get("updates", 0))
    if epoch == "best" and not record.is_adopted:
        update = update // int(result["epochs"]) * int(result["top1_best_epoch"])
    return ModelSource(
        model=masked_model(config, weights),
        geometry=config.model,
        data=config.data,
        recipe=config.recipe,
        name=f"{about['row']} at scale {config.scale.name}, seed {config.seed}, {epoch} epoch",
        about={
            "kind": "record",
            "record": str(record.path),
            **{key: about[key] for key in ("table", "row", "signature")},
            "scale": config.scale.name,
            "seed": config.seed,
            "weights": epoch,
            "weights_sha256": weights_digest(weights),
        },
        seed=config.seed,
        update=update,
        classes=tuple(record.provenance().get("data_classes") or ()),
        cpu_threads=config.scale.cpu_threads,
    )


def from_export(folder: Path, kernels: Literal["measured", "dense"]) -> ModelSource:
    """Load an exported model. Raises `UserError` if there is none, or if a kernel is not available on this machine."""
    description = read_description(folder)
    with reading_export(folder):
        evaluation = description["evaluation"]
        origin: dict[str, Any] = {
            key: description[key] for key in ("table", "row", "signature", "weights") if key in description
        }
        weights = load_file(folder / WEIGHTS)
        check_finite(weights, str(folder / WEIGHTS))
        has_kernels = description["kernels"] is not None and description["kernels"]["layers"]
        return ModelSource(
            model=load_exported(folder, kernels),
            geometry=parse_geometry(description["geometry"]),
            data=Data.model_validate(evaluation["data"]),
            recipe=Recipe.model_validate(evaluation["recipe"]),
            name=f"{origin.get('row', 'a model')} as exported to {folder}",
            about={
                "kind": "export",
                "folder": str(folder),
                **origin,
                "kernels": kernels if has_kernels else "dense",
                "weights_sha256": weights_digest(weights),
                "file_sha256": sha256(folder / WEIGHTS),
            },
            seed=int(evaluation["seed"]),
            classes=tuple(description.get("classes", ())),
        )


def from_file(path: Path, config: Config, ema: bool = False, **advice: str) -> ModelSource:
    """Load a weights file into the model of a config; with `ema`, the moving average of the weights.

    `advice` for weights of another model is passed to `load_weights`.

    Raises `UserError` if the file cannot be read, or if the weights do not match the model or are not finite.
    """
    state = read_state_dict(path, ema)
    model = masked_model(config, None)
    weights = load_weights(model, state.weights, str(path), **advice)
    method = "" if config.method.name == "dense" else f" method={config.method.name}"
    return ModelSource(
        model=model,
        geometry=config.model,
        data=config.data,
        recipe=config.recipe,
        name=f"{path}, backbone={config.backbone.name}{method} at scale {config.scale.name}",
        about={
            "kind": "file",
            "file": str(path),
            "backbone": config.backbone.name,
            "method": config.method.name,
            "scale": config.scale.name,
            "weights_key": state.key,
            "epoch": state.epoch,
            "is_ema": state.is_ema,
            "also_in_file": state.alternative,
            "masked": list(state.masked),
            "weights_sha256": weights_digest(weights),
            "file_sha256": sha256(path),
        },
        seed=config.seed,
        notes=tuple(_notes(state)),
    )


def _notes(state: StateDict) -> Iterator[str]:
    """Say which weights of a file were taken, unless there is no choice."""
    if state.alternative and state.is_ema:
        yield f"weights: the EMA in {state.key}; without --ema those in {state.alternative}"
    elif state.alternative:
        yield f"weights: {state.key}; with --ema the EMA in {state.alternative}"
    elif state.is_ema:
        yield f"weights: the EMA in {state.key}, the only ones in the file"
    if state.masked:
        masks = count_of(len(state.masked), "mask")
        yield f"weights: multiplied by the file's {masks} (Spartan): {first_few(state.masked)}"


def from_timm(config: Config, overridden: Collection[str]) -> ModelSource:
    """Load timm's pretrained weights for a config's backbone, with the preprocessing in timm's config of the weights.

    Keys in `overridden` (data.mean, recipe.eval_crop_pct) keep their value in `config`. Raises `UserError` if timm has
    no such weights, or if they are neither cached nor reachable.
    """
    if config.method.weights is not None or config.method.tokens is not None:
        raise UserError(f"--pretrained method={config.method.name}: published weights are dense; take method=dense")
    timm_name = config.backbone.timm_name
    pretrained = published_model(
        timm_name, config.model, config.backbone.paper, f"--pretrained backbone={config.backbone.name}", "give a file"
    )
    model = masked_model(config, None)
    weights = load_weights(model, pretrained.state_dict(), f"timm's {timm_name}")
    settings = pretrained.pretrained_cfg
    data = {key: tuple(settings[key]) for key in ("mean", "std") if f"data.{key}" not in overridden}
    recipe_keys = {"eval_crop_pct": "crop_pct", "interpolation": "interpolation"}
    recipe = {key: settings[name] for key, name in recipe_keys.items() if f"recipe.{key}" not in overridden}
    name = f"{timm_name}.{settings['tag']}" if settings.get("tag") else timm_name
    return ModelSource(
        model=model,
        geometry=config.model,
        data=config.data.model_copy(update=data),
        recipe=config.recipe.model_copy(update=recipe),
        name=f"timm's pretrained {name}",
        about={
            "kind": "pretrained",
            "timm_name": name,
            "url": settings.get("url") or settings.get("hf_hub_id") or None,
            "backbone": config.backbone.name,
            "weights_sha256": weights_digest(weights),
        },
        seed=config.seed,
    )
