"""Benchmark cases of each method of conf/method: tiny ones to check results, and the published size to measure time.

Configs are composed here, so this needs the full environment; `python -m benchmarks.composed` writes the file that
`scripts/gpu_check` reads on a machine with fewer packages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, case_of, to_json
from repro.config.compose import compose
from repro.config.costs import method_changes, physical_macs_g
from repro.inference.build import selector_spec
from repro.tables.loader import load_table, table_names
from repro.timing.timed_rows import timed_rows

FILE = Path(__file__).resolve().parent / "cases.json"
IMAGES, IMAGENET = 128, 1_281_167
SAVED = {"table1": 0.9, "table3": 0.85}  # by table: target for a row's time saving relative to its MACs saving
_SPARTAN = ("method.sparsity=0.5", "method.weights.beta_max=20")
_STAGED = ("method.tokens.keep_rates=[0.7,0.4]", "method.tokens.budget=config", "method.starts_from=dense")
# Overrides that each method needs besides its name. The keys are all trainable methods; `test_gpu_check` compares them
# with conf/method.
METHODS: Mapping[str, tuple[str, ...]] = {
    "dense": (),
    "svite": (),
    "s2vite": ("method.sparsity=0.4",),
    "svite_plus": ("method.data_sparsity=0.3",),
    "s2vite_plus": ("method.sparsity=0.4", "method.data_sparsity=0.3"),
    "omp": (),
    "gmp": (),
    "tp": ("method.weights.scoring_batches=3",),
    "ssp": ("method.sparsity=0.4", "method.weights.scoring_batches=3"),
    "spartan": _SPARTAN,
    "spartan_block16": _SPARTAN,
    "spartan_block32": _SPARTAN,
    "spartan_neuron": _SPARTAN,
    "imp": ("method.sparsity=0.5",),
    "top_kast": ("method.sparsity=0.5",),
    "ia_red2": (),
    "random_dropping": (),
    "attention_dropping": (),
    "linformer": (),
}
_TINY = {
    "s2vite": ("method.sparsity=0.3",),
    "s2vite_plus": ("method.sparsity=0.3", "method.data_sparsity=0.3"),
    "ssp": ("method.sparsity=0.3", "method.weights.scoring_batches=3"),
    "spartan_block16": (*_SPARTAN, "method.weights.block=4x4"),
    "spartan_block32": (*_SPARTAN, "method.weights.block=4x4"),
    "ia_red2": ("method.tokens.interpreters=2",),
    "random_dropping": (*_STAGED, "method.finetune.stages=2"),
    "attention_dropping": (*_STAGED, "method.finetune.stages=2"),
}
_AT_A_BUDGET = ("method.tokens.budget=config",)


def tiny(name: str) -> Case:
    """A method on two blocks of width 12, for 12 updates in which its masks change, without stochastic depth."""
    overrides = (
        *("backbone=deit_tiny", "model.embed_dim=12", "model.depth=2", "model.weight_init=''"),
        *("scale=smoke", "tracker=none", f"data.limit_train={IMAGES}", "recipe.epochs=3"),
        *("recipe.global_batch=32", "recipe.micro_batch=16", f"method={name}", *_TINY.get(name, METHODS[name])),
    )
    return case_of(name, compose(list(overrides)), IMAGES)


def published(backbone: str, name: str) -> Case:
    """A method on a backbone of the published size, with the published recipe."""
    extra = _AT_A_BUDGET if name in ("random_dropping", "attention_dropping") else ()
    size = (f"backbone={backbone}", "scale=paper", "tracker=none", "data.root=not_read")
    config = compose([*size, f"method={name}", *METHODS[name], *extra])
    return case_of(f"{backbone} {name}", config, IMAGENET)


def smaller_models() -> list[dict[str, Any]]:
    """Return the rows of all tables whose vision transformer is physically smaller, with their sizes and MACs."""
    found = []
    for table in map(load_table, table_names()):
        for timed in timed_rows(table, table.rows):
            model, method = timed.config.model, timed.config.method
            if model.architecture != "vit":
                continue
            shares = method_changes(model, method).unit_shares
            units = {kind: round(model.units[kind] * share) for kind, share in shares.items()} or None
            published_pct = timed.row.best_published("time_saving_pct")
            found.append(
                {
                    "row": f"{table.name} {timed.row.id}",
                    "geometry": model.model_dump(mode="json"),
                    "units": units,
                    "selector": selector_spec(timed.config),
                    "macs_g": physical_macs_g(model, method),
                    "dense_macs_g": physical_macs_g(model, compose(["method=dense"]).method),
                    "target": SAVED.get(table.name),
                    "published_time_saving_pct": None if published_pct is None else published_pct.value,
                }
            )
    return found


def every_case() -> dict[str, Any]:
    """Return all cases that `scripts/gpu_check` reads."""
    backbones = ("deit_tiny", "deit_small", "deit_base")
    return {
        "tiny": [to_json(tiny(name)) for name in METHODS],
        "methods": [to_json(published("deit_small", name)) for name in METHODS],
        "backbones": [to_json(published(backbone, name)) for backbone in backbones for name in ("dense", "svite")],
        "smaller_models": smaller_models(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(every_case(), separators=(",", ":")) + "\n", encoding="utf-8")
    print(FILE)
