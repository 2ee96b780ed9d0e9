"""Real runs that take a second: two blocks, 128 digits, 12 updates with accumulation, masks moved at each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.config import Config
from repro.config.compose import compose
from repro.data.splits import Splits, load_splits
from repro.distributed import World
from repro.tracking.sinks import Sinks
from repro.training.loop import RunContext, Trainer

WALL_CLOCK = ("step_time_ms", "images_per_s", "loader_share_pct")

Weights = dict[str, Tensor]

SPARTAN = ("method.sparsity=0.5", "method.weights.beta_max=20")
# Every method and every choice that has code of its own.
METHODS: Mapping[str, tuple[str, ...]] = {
    "dense": ("method=dense",),
    "svite": ("method=svite",),
    "svite global": ("method=svite", "method.weights.distribution=global", "method.weights.decay=as_released"),
    "svite random": ("method=svite", "method.weights.prune=random", "method.weights.growth=random"),
    "svite momentum": (
        "method=svite",
        "method.weights.growth=momentum",
        "method.weights.distribution=uniform",
    ),
    "s2vite": ("method=s2vite", "method.sparsity=0.3"),
    "s2vite as released": ("method=s2vite", "method.sparsity=0.3", "method.weights.growth=as_released"),
    "svite_plus": ("method=svite_plus", "method.data_sparsity=0.3"),
    "svite_plus as released": (
        "method=svite_plus",
        "method.data_sparsity=0.3",
        "method.tokens.selection=as_released",
    ),
    "s2vite_plus": ("method=s2vite_plus", "method.sparsity=0.3", "method.data_sparsity=0.3"),
    "omp": ("method=omp",),
    "gmp": ("method=gmp",),
    "tp": ("method=tp", "method.weights.scoring_batches=3"),
    "ssp": ("method=ssp", "method.sparsity=0.3", "method.weights.scoring_batches=3"),
    "spartan": ("method=spartan", *SPARTAN),
    "spartan erk": ("method=spartan", *SPARTAN, "method.weights.distribution=erk", "method.weights.frozen_mask=hard"),
    "spartan macs": ("method=spartan", *SPARTAN, "method.weights.cost=macs"),
    "spartan blocks": ("method=spartan_block16", *SPARTAN, "method.weights.block=4x4"),
    "spartan neuron": ("method=spartan_neuron", *SPARTAN),
    "imp": ("method=imp", "method.sparsity=0.5"),
    "top_kast": ("method=top_kast", "method.sparsity=0.5", "method.weights.distribution=uniform"),
}
TWO_STAGES = ("method.tokens.keep_rates=[0.7,0.4]",)
AT_A_BUDGET = (*TWO_STAGES, "method.tokens.budget=config", "method.starts_from=dense", "method.finetune.stages=2")
# Methods that leave weights as they are and drop or mix tokens.
ON_TOKENS: Mapping[str, tuple[str, ...]] = {
    "ia_red2": ("method=ia_red2", "method.tokens.interpreters=2"),
    "ia_red2 one stage": ("method=ia_red2", "method.tokens.interpreters=1", "method.finetune.changes.epochs=2"),
    "random dropping": ("method=random_dropping", *AT_A_BUDGET),
    "attention dropping": ("method=attention_dropping", *AT_A_BUDGET),
    "linformer": ("method=linformer",),
}
# A model of another family, with batch norms, under masks of every kind.
ON_RESNET: Mapping[str, tuple[str, ...]] = {
    "resnet dense": ("method=dense",),
    "resnet svite": ("method=svite",),
    "resnet omp": ("method=omp",),
    "resnet gmp": ("method=gmp", "method.weights.distribution=erk"),
    "resnet tp": ("method=tp", "method.weights.scoring_batches=3"),
    "resnet spartan": ("method=spartan", *SPARTAN),
    "resnet spartan blocks": ("method=spartan_block16", *SPARTAN, "method.weights.block=4x4"),
    "resnet imp": ("method=imp", "method.sparsity=0.5"),
    "resnet top_kast": ("method=top_kast", "method.sparsity=0.5"),
}
SHORT = (
    *("scale=smoke", "tracker=none", "run.device=cpu", "run.log_every_updates=2"),
    *("data.limit_train=128", "data.limit_test=64"),
    *("recipe.epochs=3", "recipe.global_batch=32", "recipe.micro_batch=16"),
)
VIT = ("backbone=deit_tiny", "model.embed_dim=12", "model.depth=2", "model.weight_init=''")
RESNET = ("backbone=resnet50", "model.channels=[4,4,8,8]", "recipe.ema_decay=0.99996", "recipe.mixup=0.2")


def small_config(*overrides: str) -> Config:
    """The config of a small run of a vision transformer."""
    return compose([*VIT, *SHORT, *overrides])


def resnet_config(*overrides: str) -> Config:
    """The config of a small run of a residual network."""
    return compose([*RESNET, *SHORT, *overrides])


# On clips; `nothing left`: an interpreter that keeps no patch, so that blocks learn from class tokens alone.
ON_VIDEO: Mapping[str, tuple[str, ...]] = {
    "dense": ("method=dense",),
    "nothing left": (
        *("method=ia_red2", "method.tokens.interpreters=1", "method.finetune.changes.epochs=2"),
        *("method.tokens.threshold=1", "method.tokens.interpreter_share=0"),
    ),
}


def video_config(videos: Path, *overrides: str) -> Config:
    """The config of a small run of a video transformer on the moving shapes, which are kept in a folder."""
    return compose(
        [
            *("backbone=timesformer_base", "data=shapes_video", f"data.root='{videos}'", "data.images_per_epoch=32"),
            *("scale=smoke", "data.limit_train=null", "data.limit_test=null", "tracker=none", "run.device=cpu"),
            *("model.depth=2", "model.embed_dim=12", "model.num_heads=3", "recipe.epochs=2", "recipe.global_batch=16"),
            *("recipe.micro_batch=8", "data.workers=0", *overrides),
        ]
    )


def few_videos() -> None:
    """Let this process draw 48 moving shapes instead of 1,024."""
    from repro.data.data_sets import DATA_SETS

    DATA_SETS["shapes_video"] = replace(DATA_SETS["shapes_video"], images=(32, 16))


def config_of(name: str, *overrides: str) -> Config:
    """The config of a small run of one of `METHODS`, `ON_TOKENS` or `ON_RESNET`."""
    if name in ON_RESNET:
        return resnet_config(*ON_RESNET[name], *overrides)
    return small_config(*{**METHODS, **ON_TOKENS}[name], *overrides)


_splits: dict[str, Splits] = {}


def splits_of(config: Config) -> Splits:
    """The images of a small run, read once."""
    key = config.data.model_dump_json()
    if key not in _splits:
        _splits[key] = load_splits(config.data, config.recipe, config.model)
    return _splits[key]


@dataclass
class Kept:
    """A sink that keeps entries in a list."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def write(self, entry: Mapping[str, Any]) -> None:
        self.entries.append(dict(entry))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a kind, without what a clock said, the last one of each update."""
        latest = {
            entry["update"]: {key: value for key, value in entry.items() if key not in WALL_CLOCK}
            for entry in self.entries
            if entry["kind"] == kind
        }
        return [latest[update] for update in sorted(latest)]


def trainer(
    config: Config,
    checkpoints: Path,
    weights: Weights | None = None,
    kept: Kept | None = None,
    stop_at: int | None = None,
    world: World | None = None,
) -> Trainer:
    """A trainer that is told to stop after update `stop_at`."""
    reached = [0]

    def progress(update: int, _: int) -> None:
        reached[0] = update

    context = RunContext(
        world or World(0, 1, torch.device("cpu")),
        Sinks([kept] if kept is not None else []),
        checkpoints,
        progress,
        lambda: "the test" if stop_at is not None and reached[0] >= stop_at else None,
    )
    begins = weights if config.method.starts_from is not None else None
    return Trainer(config, splits_of(config), context, begins)


def dense_weights(config: Config) -> Weights:
    """The weights of a small dense run that has finished."""
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(config, Path(folder))
        run.run()
    return run.state.model.state_dict()


def same(left: object, right: object) -> bool:
    """Bit for bit, through lists, dicts and tensors."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return isinstance(right, list | tuple) and len(left) == len(right) and all(map(same, left, right))
    return left == right
