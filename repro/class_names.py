"""Classes that configs and records name as `module.Class`.

The signature of a run is a hash over the names of its method's classes. A class that moves keeps its first name in
signatures, so that existing records are found and resumed, and stored configs with an earlier name are read as the
current one. Add a line to `FIRST_NAMES` when you move or rename a class; a new class needs none.
"""

from __future__ import annotations

import pkgutil
from typing import TypeVar

from repro.errors import UserError

T = TypeVar("T")

# By current name.
FIRST_NAMES = {
    "repro.methods.tokens.attention_dropping.AttentionDropping": "repro.tokens.attention_dropping.AttentionDropping",
    "repro.methods.tokens.ia_red2.IARED2": "repro.tokens.ia_red2.IARED2",
    "repro.methods.tokens.linformer.Linformer": "repro.tokens.linformer.Linformer",
    "repro.methods.tokens.random_dropping.RandomDropping": "repro.tokens.random_dropping.RandomDropping",
    "repro.methods.tokens.svite_plus.InputTokenSelector": "repro.tokens.svite_plus.InputTokenSelector",
    "repro.methods.weights.gmp.GMP": "repro.sparsity.gmp.GMP",
    "repro.methods.weights.imp.IMP": "repro.sparsity.imp.IMP",
    "repro.methods.weights.omp.OMP": "repro.sparsity.omp.OMP",
    "repro.methods.weights.s2vite.S2ViTE": "repro.sparsity.s2vite.S2ViTE",
    "repro.methods.weights.spartan.Spartan": "repro.sparsity.spartan.Spartan",
    "repro.methods.weights.ssp.SSP": "repro.sparsity.ssp.SSP",
    "repro.methods.weights.svite.SViTE": "repro.sparsity.svite.SViTE",
    "repro.methods.weights.top_kast.TopKAST": "repro.sparsity.top_kast.TopKAST",
    "repro.methods.weights.tp.TP": "repro.sparsity.tp.TP",
}
_CURRENT_NAMES = {first: current for current, first in FIRST_NAMES.items()}

# Cost models of the classes in records that were made before configs named a cost model.
_COST_MODELS = {
    "repro.methods.tokens.cost_models.InputSelection": ("InputTokenSelector",),
    "repro.methods.tokens.cost_models.StagedDropping": ("AttentionDropping", "IARED2", "RandomDropping"),
    "repro.methods.tokens.cost_models.MixedKeys": ("Linformer",),
    "repro.methods.weights.cost_models.WeightMasks": ("GMP", "OMP", "SViTE", "TP"),
    "repro.methods.weights.cost_models.WholeModelTarget": ("IMP", "Spartan", "TopKAST"),
    "repro.methods.weights.cost_models.RemovedUnits": ("S2ViTE", "SSP"),
}


def first_name(target: str) -> str:
    """The name that signatures use for a class: its own unless the class has moved."""
    return FIRST_NAMES.get(target, target)


def current_name(target: str) -> str:
    """The current name of a class that a stored config may name differently."""
    return _CURRENT_NAMES.get(target, target)


def cost_model_of(target: str) -> str | None:
    """The cost model of a class in a stored config that names none; None for a class of another project."""
    if target not in FIRST_NAMES:
        return None
    name = target.rpartition(".")[2]
    return next(cost_model for cost_model, classes in _COST_MODELS.items() if name in classes)


def load_class(target: str, base: type[T]) -> type[T]:
    """Import the class `target`. Raises `UserError` if it cannot be imported, or is no subclass of `base`."""
    try:
        loaded = pkgutil.resolve_name(current_name(target))
    except (ImportError, ValueError, AttributeError) as error:  # also one that the module itself raises
        reason = " ".join(str(error).split())
        raise UserError(f"{target}: cannot be imported ({reason}); write module.Class, see conf/method") from None
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise UserError(f"{target}: not a {base.__module__}.{base.__name__}")
    return loaded
