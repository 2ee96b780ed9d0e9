"""A model to be evaluated, wherever its weights are: in a record, an export, a file, or timm's cache."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from repro.config import Config, Data, Recipe
from repro.errors import UserError
from repro.geometry import Geometry, parse_geometry
from repro.models.export import WEIGHTS, load_exported, masked_model, read_description
from repro.models.pretrained import published
from repro.runs.record import Record
from repro.training.checkpoint import sha256
from repro.training.finished import finished_weights
from repro.training.state_file import check_fits, read_state, weights_digest


@dataclass(frozen=True)
class Evaluated:
    """A model in evaluation mode, on the CPU, and how its images are prepared.

    Attributes:
        name: what it is, in a few words.
        about: the same as JSON values: kind, where the weights are, their hash.
        data: what it was trained on, where that is known; normalised as it is used to.
        update: of its training, for what a model draws at random in evaluation.
    """

    model: nn.Module
    geometry: Geometry
    data: Data
    recipe: Recipe
    name: str
    about: dict[str, Any]
    seed: int = 0
    update: int = 0


def of_record(record: Record, which: Literal["last", "best"]) -> Evaluated:
    """The model of a finished run, after its last epoch or its best. Raises `UserError` where its weights are gone."""
    config, about, result = record.config(), record.about(), record.result() or {}
    weights = finished_weights(record, which)
    update = int(result["updates"])
    if which == "best":
        update = update // int(result["epochs"]) * int(result["top1_best_epoch"])
    return Evaluated(
        masked_model(config, weights),
        config.model,
        config.data,
        config.recipe,
        f"{about['row']} at scale {config.scale.name}, seed {config.seed}, {which} epoch",
        {
            "kind": "record",
            "record": str(record.path),
            **{key: about[key] for key in ("table", "row", "signature")},
            **{"scale": config.scale.name, "seed": config.seed, "weights": which},
            "weights_sha256": weights_digest(weights),
        },
        config.seed,
        update,
    )


def of_export(folder: Path, kernels: Literal["measured", "dense"]) -> Evaluated:
    """An exported model. Raises `UserError` where there is none, or a kernel of it cannot be had here."""
    description = read_description(folder)
    evaluation = description["evaluation"]
    geometry = parse_geometry(description["geometry"])
    model = load_exported(folder, kernels)
    used = kernels if description["kernels"] is not None and description["kernels"]["layers"] else "dense"
    origin: dict[str, Any] = {
        key: description[key] for key in ("table", "row", "signature", "weights") if key in description
    }
    return Evaluated(
        model,
        geometry,
        Data.model_validate(evaluation["data"]),
        Recipe.model_validate(evaluation["recipe"]),
        f"{origin.get('row', 'a model')} as exported to {folder}",
        {
            "kind": "export",
            "folder": str(folder),
            **origin,
            "kernels": used,
            "weights_sha256": weights_digest(read_state(folder / WEIGHTS)),
            "file_sha256": sha256(folder / WEIGHTS),
        },
        int(evaluation["seed"]),
    )


def of_file(path: Path, config: Config) -> Evaluated:
    """The model of a config with the weights in a file. Raises `UserError` where they are not such a model's."""
    weights = read_state(path)
    check_fits(weights, masked_model(config, None), str(path))
    return Evaluated(
        masked_model(config, weights),
        config.model,
        config.data,
        config.recipe,
        f"{path}, {_model_name(config)}",
        {
            "kind": "file",
            "file": str(path),
            **_model_about(config),
            "weights_sha256": weights_digest(weights),
            "file_sha256": sha256(path),
        },
        config.seed,
    )


def of_pretrained(config: Config, said: Collection[str]) -> Evaluated:
    """timm's weights of a config's backbone, with images prepared as timm says that they were trained with.

    Of the keys `said` (data.mean, recipe.eval_crop_pct) the config's value is taken instead. Raises `UserError` where
    timm has none, or they cannot be had.
    """
    if config.method.weights is not None or config.method.tokens is not None:
        raise UserError(f"--pretrained method={config.method.name}: published weights are dense; take method=dense")
    timm_name = config.backbone.timm_name
    found = published(
        timm_name, config.model, config.backbone.paper, f"--pretrained backbone={config.backbone.name}", "give a file"
    )
    weights, prepared = found.weights, found.config
    model = masked_model(config, None)
    check_fits(weights, model, f"timm's {timm_name}")
    model.load_state_dict(weights)
    data = {key: tuple(prepared[key]) for key in ("mean", "std") if f"data.{key}" not in said}
    own = {"eval_crop_pct": "crop_pct", "interpolation": "interpolation"}
    recipe = {key: prepared[name] for key, name in own.items() if f"recipe.{key}" not in said}
    tag = prepared.get("tag")
    name = f"{timm_name}.{tag}" if tag else timm_name
    return Evaluated(
        model,
        config.model,
        config.data.model_copy(update=data),
        config.recipe.model_copy(update=recipe),
        f"timm's pretrained {name}",
        {
            "kind": "pretrained",
            "timm_name": name,
            "url": prepared.get("url") or prepared.get("hf_hub_id") or None,
            "backbone": config.backbone.name,
            "weights_sha256": weights_digest(weights),
        },
        config.seed,
    )


def _model_name(config: Config) -> str:
    method = "" if config.method.name == "dense" else f" method={config.method.name}"
    return f"backbone={config.backbone.name}{method} at scale {config.scale.name}"


def _model_about(config: Config) -> dict[str, Any]:
    return {"backbone": config.backbone.name, "method": config.method.name, "scale": config.scale.name}
