"""What a finished run writes to result.json, with units in the names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from repro.config import Config
from repro.config.costs import row_cost
from repro.config.schedule import mask_schedule
from repro.counting.schedule import Length
from repro.distributed import World
from repro.runs.record import Record
from repro.training.state import TrainingState

# Metrics of an evaluation that have cells of their own; all others come from method parts.
_NAMED = ("update", "epoch", "top1_pct", "top5_pct", "eval_loss", "top1_ema_pct", "top5_ema_pct")


def mask_cells(config: Config, length: Length) -> dict[str, int]:
    """Return the interval of mask updates and the update that freezes the masks; empty if masks never change."""
    schedule = mask_schedule(config, length)
    return {} if schedule is None else {"mask_interval_updates": schedule.interval, "mask_end_update": schedule.end}


def training_cells(
    config: Config, length: Length, state: TrainingState, accumulation_steps: int
) -> dict[str, float | None]:
    """Return the cells measured by training, after its last evaluation."""
    return {
        "updates": state.update,
        "epochs": length.epochs,
        "global_batch": length.global_batch,
        "accumulation_steps": accumulation_steps,
        "peak_learning_rate": config.effective_recipe.peak_lr,
        **mask_cells(config, length),
        "wall_s": round(state.wall_s, 3),
        "top1_last_pct": state.last["top1_pct"],
        "top5_last_pct": state.last["top5_pct"],
        "loss_last": state.last["eval_loss"],
        "top1_ema_last_pct": state.last.get("top1_ema_pct"),
        "top1_best_pct": state.best.top1_pct,
        "top1_best_epoch": state.best.epoch,
        **{name: value for name, value in state.last.items() if name not in _NAMED},
        **state.part_metrics(),
        # Not rounded: reports count the MACs of global pruning from these.
        **{f"density/{name}": value for part in state.parts for name, value in part.layer_density().items()},
    }


def run_result(record: Record, config: Config, world: World, cells: dict[str, float | None]) -> dict[str, Any]:
    """Return the result of a run: which run it is, the cost of its row, and the measured cells."""
    about = record.about()
    cost = asdict(row_cost(config, [cells]))
    return {
        "schema": 1,
        "table": about["table"],
        "row": about["row"],
        "scale": config.scale.name,
        "seed": config.seed,
        "signature": about["signature"],
        "dataset": config.data.name,
        "device": str(world.device),
        "world_size": world.size,
        **{name: value for name, value in cost.items() if name not in ("is_exact", "is_measured")},
        **cells,
    }
