"""One rank of a world of two: trains every method and writes what it saw after every update.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python two_ranks.py FOLDER

FOLDER holds dense.pt and dense_resnet.pt; `rank<k>.json` is written there: {method: [digests, ...]}.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from small_runs import METHODS, ON_RESNET, ON_TOKENS, ON_VIDEO, Kept, config_of, few_videos, splits_of, video_config
from torch import nn

from repro.distributed import World, join_world, leave_world
from repro.models.backbone import build_model
from repro.tracking.sinks import Sinks
from repro.training.loop import RunContext, Trainer


def digest(state: Any) -> str:
    """A hash of nested tensors and plain values, bit for bit."""
    seen = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            seen.update(value.detach().contiguous().cpu().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                seen.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            seen.update(repr(value).encode())

    add(state)
    return seen.hexdigest()


CHECKPOINTED = ("svite", "s2vite", "ia_red2")


def train(name: str, folder: Path, world: World, dense: dict[str, torch.Tensor], *overrides: str) -> list[list[Any]]:
    """What chooses and the weights, at the start and after every update."""
    config = config_of(name, "recipe.micro_batch=8", "recipe.epochs=2", *overrides)
    kept = Kept()
    seen: list[list[Any]] = []
    runs: list[Trainer] = []

    def note(update: int, _: int) -> None:
        state = runs[0].state
        seen.append([update, digest([part.state_dict() for part in state.parts]), digest(state.model.state_dict())])

    context = RunContext(world, Sinks([kept]), folder / f"{name} {len(overrides)}", note, lambda: None)
    runs.append(Trainer(config, splits_of(config), context, dense if config.method.starts_from else None))
    assert runs[0].loader.accumulate == 2
    note(0, 0)
    result = runs[0].run()
    seen.append(["accuracy", result["top1_last_pct"], result["loss_last"]])
    seen.append(["entries", [entry["kind"] for entry in kept.entries]])
    return seen


def on_videos(name: str, folder: Path, world: World) -> dict[str, Any]:
    """The weights that a small video run ends with, as numbers, and its loss."""
    config = video_config(folder / "videos", *ON_VIDEO[name])
    begun_with = build_model(config.model, 0.0, 7).state_dict() if config.method.starts_from else None
    context = RunContext(world, Sinks([Kept()]), folder / f"video {name}", lambda *_: None, lambda: None)
    run = Trainer(config, splits_of(config), context, begun_with)
    loss = run.run()["loss_last"]
    return {"loss": loss, "weights": {key: value.tolist() for key, value in run.state.model.state_dict().items()}}


def batch_norms(world: World) -> list[Any]:
    """What ranks with running means 1 and 2, and variances 3 and 6, have once they are averaged, and averaged again."""
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), norm, nn.BatchNorm1d(3, track_running_stats=False))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(1.0 + world.rank)
    norm.running_var.fill_(3.0 * (1 + world.rank))
    seen = []
    for _ in range(2):
        world.average_batch_norms(model)
        seen.append([norm.running_mean.tolist(), norm.running_var.tolist()])
    return seen


def main(folder: Path) -> None:
    """Train every method and write what was seen."""
    torch.set_num_threads(1)
    world = join_world("cpu")
    dense, dense_resnet = (torch.load(folder / f"{name}.pt", weights_only=True) for name in ("dense", "dense_resnet"))
    found = {name: train(name, folder, world, dense) for name in [*METHODS, *ON_TOKENS]}
    found |= {name: train(name, folder, world, dense_resnet) for name in ON_RESNET}
    for name in CHECKPOINTED:
        found[f"{name}, checkpointed"] = train(name, folder, world, dense, "run.checkpoint_activations=true")
    if (folder / "videos").is_dir():  # what decodes them is here
        few_videos()
        found |= {f"video {name}": on_videos(name, folder, world) for name in ON_VIDEO}
    found["batch norms"] = batch_norms(world)
    leave_world()
    (folder / f"rank{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
