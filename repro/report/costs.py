"""How sure a row's counted costs are: exact, or an estimate, and why."""

from __future__ import annotations

from repro.measure.cost import Cost, rests_on_data
from repro.report.evidence import Evidence

# What is counted from the tokens that are left.
BY_TOKENS = ("macs_g", "flops_saving_pct", "flops_saving_alt_pct")

_MACS_ESTIMATED = "so MACs and FLOPs saving are estimates (Params are exact)"
KEPT_AS_PLANNED = f"tokens left are those of the plan: no run has measured any, {_MACS_ESTIMATED}"
KEPT_ELSEWHERE = (
    f"tokens left are those measured on other data than the table's, or at another scale, {_MACS_ESTIMATED}"
)
KEPT_SO_FAR = (
    f"tokens left are those that the finished seeds have measured, fewer seeds than a verdict takes, {_MACS_ESTIMATED}"
)
SPLIT_BY_TRAINING = f"layer densities are decided by training; counted as uniform, {_MACS_ESTIMATED}"
PARAMS_BY_TRAINING = (
    "layer densities are decided by training; counted as uniform, so Params are an estimate (MACs are exact)"
)


def cost_note(cost: Cost, evidence: Evidence, *, is_published_training: bool, wanted_seeds: int) -> str:
    """Why a row's MACs, or its parameters, are not an exact count of the published model; empty where they are.

    `wanted_seeds` is how many finished ones a verdict takes.
    """
    if cost.is_measured and is_published_training:
        return KEPT_SO_FAR if evidence.n_done < wanted_seeds else ""
    if cost.is_measured:
        return KEPT_ELSEWHERE
    if rests_on_data(evidence.config.method):
        return KEPT_AS_PLANNED
    if not cost.are_params_exact:
        return PARAMS_BY_TRAINING
    return "" if cost.is_exact else SPLIT_BY_TRAINING
