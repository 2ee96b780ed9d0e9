"""Whether a row's counted costs are exact or estimates, and why."""

from __future__ import annotations

from repro.report.cells import RowContext

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


def cost_note(row: RowContext) -> str:
    """Return why MACs or parameters are only estimates for the published model; empty if the counts are exact."""
    cost = row.cost
    if cost.is_measured and row.is_published_training:
        return KEPT_SO_FAR if row.evidence.n_done < row.wanted_seeds else ""
    if cost.is_measured:
        return KEPT_ELSEWHERE
    if row.rests_on_data:
        return KEPT_AS_PLANNED
    if not cost.are_params_exact:
        return PARAMS_BY_TRAINING
    return "" if cost.is_exact else SPLIT_BY_TRAINING


def applies_to(note: str, metric: str) -> bool:
    """Return whether a cost note applies to this metric: one note is about parameters, all others about MACs."""
    return bool(note) and (metric in ("params_m", "params_saving_pct")) == (note == PARAMS_BY_TRAINING)
