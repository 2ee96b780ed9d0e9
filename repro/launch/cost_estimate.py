"""Estimates the cost of runs: device hours, wall time, energy.

The sources are, in this order: finished runs of the same model and method, a throughput measured on this machine, and a
published throughput or, at scale mini, counted MACs and the utilisation in devices.csv. One throughput per model is
enough, because masks are applied to dense weights, so that masked training costs as much as dense training. A cost
without a source is None, never a guess.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.config import Config, SlurmLauncher
from repro.config.schedule import training_length
from repro.csv_files import read_csv
from repro.errors import count_of
from repro.launch.plan import PlannedRun
from repro.locations import TABLES_DIR
from repro.tables.rungs import MINI
from repro.timing.rate import Throughput

TRAINING_OVER_INFERENCE = 3.0  # a training step is one forward pass and a backward pass, which costs about two


@dataclass(frozen=True)
class CostEstimate:
    """The cost of one run; None if unknown. `wall_hours` is the time with all its devices."""

    device_hours: float | None
    wall_hours: float | None
    energy_kwh: float | None
    known_from: str
    is_on_gpu: bool = True


@dataclass(frozen=True)
class TotalCost:
    """The total cost of several runs, without the `unknown` ones without a cost. `wall_hours` is a lower bound."""

    device_hours: float
    wall_hours: float
    energy_kwh: float | None
    unknown: int


def published_throughput(config: Config) -> Throughput | None:
    """Return the published throughput of a model; None if there is none, or the model is not of the published size."""
    entry = _published().get(config.backbone.name)
    if config.model != config.backbone.paper or entry is None or not entry["inference_img_s"]:
        return None
    inference = float(entry["inference_img_s"])
    return Throughput(
        inference / TRAINING_OVER_INFERENCE,
        entry["device"],
        f"{inference:g} images/s in inference on a {entry['device']} ({entry['source']}); a training step counts as "
        f"{TRAINING_OVER_INFERENCE:g} forward passes",
    )


def known_throughput(config: Config) -> Throughput | None:
    """Return the throughput that is known without a measurement; None if there is none."""
    return counted_throughput(config) if config.scale.name == MINI else published_throughput(config)


def counted_throughput(config: Config) -> Throughput:
    """Estimate the throughput from the model's MACs, and peak and utilisation of the first device in devices.csv."""
    columns = ("device", "peak_tflops", "utilisation_pct", "source", "note")
    _, entry = next(read_csv(TABLES_DIR / "devices.csv", columns))
    peak, used_pct = float(entry["peak_tflops"]), float(entry["utilisation_pct"])
    flops_per_image = 2 * TRAINING_OVER_INFERENCE * config.model.dense_model().macs  # a MAC is two operations
    return Throughput(
        peak * 1e12 * used_pct / 100 / flops_per_image,
        entry["device"],
        f"counted MACs on one {entry['device']} at {used_pct:g} % of its {peak:g} TFLOPS ({entry['source']}; the share "
        f"is assumed, repro plan --probe measures it); a training step counts as {TRAINING_OVER_INFERENCE:g} forward "
        "passes",
    )


def images(config: Config) -> int | None:
    """Return the number of images that a training processes; None if the data set has to be read to know its size."""
    every = config.data.images_per_epoch or config.data.images_expected
    if every is None:
        return None
    length = training_length(config, min(every, config.data.limit_train or every))
    return length.updates * length.global_batch


def estimate(
    config: Config, throughput: Throughput | None, watts: float | None, remaining: float = 1.0
) -> CostEstimate:
    """Estimate the cost of the `remaining` share (0 to 1) of one run.

    `watts` is the power of one device; None for that of the throughput.
    """
    count = images(config)
    if throughput is None or count is None:
        return CostEstimate(None, None, None, _why_unknown(config))
    wall_hours = remaining * count / throughput.images_per_s / 3600 / config.launcher.ranks
    device_hours = wall_hours * devices(config)
    watts = throughput.watts if watts is None else watts
    energy_kwh = None if watts is None else device_hours * watts / 1000
    is_on_gpu = throughput.device != "cpu"
    return CostEstimate(device_hours, wall_hours, energy_kwh, throughput.known_from, is_on_gpu)


def devices(config: Config) -> int:
    """Return the number of devices that one run occupies, including GPUs of its job that it does not train on."""
    launcher = config.launcher
    requested = (launcher.gpus_per_node or 0) * launcher.nodes if isinstance(launcher, SlurmLauncher) else 0
    return max(launcher.ranks, requested)


def estimates(
    runs: Sequence[PlannedRun], throughput_of: Callable[[Config], Throughput | None], watts: float | None
) -> list[CostEstimate]:
    """Estimate the remaining cost of each run from finished runs of the same model and method, or else `throughput_of`.

    `throughput_of` is called once for each combination of model, micro-batch and number of CPU threads.
    """
    finished = finished_throughputs(runs)
    known: dict[tuple[Any, ...], Throughput | None] = {}
    found = []
    for run in runs:
        config = run.config
        throughput = finished.get(_model_key(config))
        if throughput is None:
            key = (config.backbone.name, config.model, config.recipe.micro_batch, config.scale.cpu_threads)
            if key not in known:
                known[key] = throughput_of(config)
            throughput = known[key]
        status = run.record.status()
        remaining = 1 - status.update / status.updates if status.updates else 1.0
        found.append(estimate(config, throughput, watts, remaining))
    return found


def finished_throughputs(runs: Sequence[PlannedRun]) -> dict[tuple[Any, ...], Throughput]:
    """Return the median throughput per device of finished runs, by model and method.

    It follows from the wall time of the runs, which includes data loading and evaluation.
    """
    rates: dict[tuple[Any, ...], list[float]] = {}
    devices_of: dict[tuple[Any, ...], str] = {}
    for run in runs:
        result, count = run.record.result(), images(run.config)
        if result is not None and count is not None and result.get("wall_s"):
            key = _model_key(run.config)
            rates.setdefault(key, []).append(count / result["wall_s"] / result.get("world_size", 1))
            devices_of[key] = str(result.get("device", "")).partition(":")[0]
    return {
        key: Throughput(
            statistics.median(values),
            devices_of[key],
            f"{count_of(len(values), 'finished run')} of {key[0]} {key[1]} here ({devices_of[key]})",
        )
        for key, values in rates.items()
    }


def _model_key(config: Config) -> tuple[Any, ...]:
    return config.backbone.name, config.method.name, config.model


def total(runs: Sequence[PlannedRun], costs: Sequence[CostEstimate], parallel: int) -> TotalCost:
    """Return the total cost of runs.

    The wall time is a lower bound: the mean load of `parallel` slots, or the longest chain of runs that start from each
    other if that takes longer.
    """
    wall_hours = {run.record.path: cost.wall_hours or 0.0 for run, cost in zip(runs, costs, strict=True)}
    known = [cost for cost in costs if cost.wall_hours is not None]
    chains = [sum(wall_hours.get(each.record.path, 0.0) for each in run.chain) for run in runs]
    energies = [cost.energy_kwh for cost in known if cost.energy_kwh is not None]
    return TotalCost(
        device_hours=sum(cost.device_hours or 0.0 for cost in known),
        wall_hours=max([sum(wall_hours.values()) / parallel, *chains], default=0.0),
        energy_kwh=sum(energies) if energies and len(energies) == len(known) else None,
        unknown=len(costs) - len(known),
    )


@functools.cache
def _published() -> Mapping[str, Mapping[str, str]]:
    """Return the lines of throughput.csv by backbone."""
    columns = ("backbone", "device", "inference_img_s", "source", "note")
    return {entry["backbone"]: entry for _, entry in read_csv(TABLES_DIR / "throughput.csv", columns)}


def _why_unknown(config: Config) -> str:
    if images(config) is None:
        return f"unknown: the images of data={config.data.name} are counted when a run reads them"
    if config.model != config.backbone.paper:
        return f"unknown: scale {config.scale.name} has models of other sizes; repro plan --probe measures them"
    entry = _published().get(config.backbone.name)
    note = entry["note"] if entry is not None else "not in throughput.csv"
    return f"unknown: {config.backbone.name}: {note}; repro plan --probe measures it"
