"""What runs would cost: device hours, wall time, energy. From a probe on this machine, or from published throughputs.

Masked training costs what dense training costs (masks save nothing while they are applied to dense weights), so one
throughput per geometry is enough. What has no source is None: a plan says `unknown` and never guesses.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.config import Config, SlurmLauncher
from repro.errors import UserError
from repro.launch.plan import PlannedRun
from repro.measure.rate import Throughput
from repro.paper_tables import TABLES_DIR, load_sources
from repro.schedule import training_length

TRAINING_OVER_INFERENCE = 3.0  # a backward pass takes about twice its forward


@dataclass(frozen=True)
class Cost:
    """The cost of one run; None where nothing tells. Wall time on all its devices at once."""

    device_hours: float | None
    wall_hours: float | None
    energy_kwh: float | None
    known_from: str


@dataclass(frozen=True)
class Total:
    """The cost of several runs, `unknown` of which have none. Wall time at the given parallelism, at the least."""

    device_hours: float
    wall_hours: float
    energy_kwh: float | None
    unknown: int


def published(config: Config) -> Throughput | None:
    """A published throughput of this geometry; None where none is known, or another geometry is trained."""
    entry = _entries().get(config.backbone.name)
    if config.model != config.backbone.paper or entry is None or not entry["inference_img_s"]:
        return None
    if entry["source"] not in load_sources():
        raise UserError(f"throughput.csv: source {entry['source']!r} is not in sources.csv")
    inference = float(entry["inference_img_s"])
    return Throughput(
        inference / TRAINING_OVER_INFERENCE,
        entry["device"],
        f"{inference:g} images/s in inference on a {entry['device']} ({entry['source']}), "
        f"training taken as {TRAINING_OVER_INFERENCE:g} times that work",
    )


@functools.cache
def _entries() -> Mapping[str, Mapping[str, str]]:
    """throughput.csv by backbone."""
    with (TABLES_DIR / "throughput.csv").open(newline="", encoding="utf-8") as stream:
        return {entry["backbone"]: entry for entry in csv.DictReader(stream)}


def _why_unknown(config: Config) -> str:
    """Why nothing is known of what this config costs."""
    if images(config) is None:
        return f"unknown: the images of data={config.data.name} are counted when a run reads them"
    if config.model != config.backbone.paper:
        return f"unknown: not of the published size at scale {config.scale.name}, repro plan --probe measures it"
    entry = _entries().get(config.backbone.name)
    note = entry["note"] if entry is not None else "not in throughput.csv"
    return f"unknown: {config.backbone.name}: {note}, repro plan --probe measures it"


def images(config: Config) -> int | None:
    """Images that a training of this config sees; None where nobody knows before the data set is counted."""
    every = config.data.images_per_epoch or config.data.images_expected
    if every is None:
        return None
    per_epoch = min(every, config.data.limit_train or every)
    length = training_length(config, per_epoch)
    return length.updates * length.global_batch


def cost(config: Config, throughput: Throughput | None, watts: float | None, left: float = 1.0) -> Cost:
    """The cost of one run, or of the share of it that is left. `watts` per device overrides what the throughput knows.

    Devices that a job has and does not train on cost as well.
    """
    count = images(config)
    if throughput is None or count is None:
        return Cost(None, None, None, _why_unknown(config))
    wall_hours = left * count / throughput.images_per_s / 3600 / ranks(config)
    device_hours = wall_hours * devices(config)
    power = throughput.watts if watts is None else watts
    return Cost(
        device_hours,
        wall_hours,
        None if power is None else device_hours * power / 1000,
        throughput.known_from,
    )


def ranks(config: Config) -> int:
    """Devices that one run trains on."""
    launcher = config.launcher
    if isinstance(launcher, SlurmLauncher):
        return launcher.ranks
    return getattr(launcher, "tasks_per_node", 1)


def devices(config: Config) -> int:
    """Devices that one run takes from others: those it trains on, and those that its job asks for beyond them."""
    launcher = config.launcher
    asked = (launcher.gpus_per_node or 0) * launcher.nodes if isinstance(launcher, SlurmLauncher) else 0
    return max(ranks(config), asked)


def costs(
    runs: Sequence[PlannedRun], throughput_of: Callable[[Config], Throughput | None], watts: float | None
) -> list[Cost]:
    """The cost of each run; `throughput_of` is asked once for each geometry and micro-batch."""
    known: dict[tuple[Any, ...], Throughput | None] = {}
    found = []
    for run in runs:
        config = run.config
        key = (config.backbone.name, config.model, config.recipe.micro_batch, config.scale.cpu_threads)
        if key not in known:
            known[key] = throughput_of(config)
        status = run.record.status()
        left = 1 - status.update / status.updates if status.updates else 1.0
        found.append(cost(config, known[key], watts, left))
    return found


def total(runs: Sequence[PlannedRun], every: Sequence[Cost], parallel: int) -> Total:
    """The sum over runs and their costs.

    Wall time is at least the mean load of `parallel` places, and at least the longest run together with those that have
    to be done before it.
    """
    known = {run.record.path: each.wall_hours or 0.0 for run, each in zip(runs, every, strict=True)}
    walls = [each.wall_hours for each in every if each.wall_hours is not None]
    chains = [sum(known.get(one.record.path, 0.0) for one in [run, *run.origins]) for run in runs]
    energies = [each.energy_kwh for each in every if each.energy_kwh is not None]
    return Total(
        device_hours=sum(each.device_hours for each in every if each.device_hours is not None),
        wall_hours=max([sum(walls) / parallel, *chains], default=0.0),
        energy_kwh=sum(energies) if energies and len(energies) == len(walls) else None,
        unknown=len(every) - len(walls),
    )


def as_json(each: Cost) -> Mapping[str, Any]:
    """Plain values, for `repro plan --json`."""
    return {
        "device_hours": each.device_hours,
        "wall_hours": each.wall_hours,
        "energy_kwh": each.energy_kwh,
        "cost_known_from": each.known_from,
    }
