"""Describe how a row was timed, or why it was not."""

from __future__ import annotations

from dataclasses import replace

from repro.config.costs import has_masked_weights, why_untimed
from repro.counting.cost_model import BY_TRAINING
from repro.errors import count_of
from repro.report.cells import RowContext
from repro.report.evidence import Evidence
from repro.report.verdicts import NOT_MEASURED
from repro.runs.timing import Timing

MASKED_DENSE = "masked-dense weights: no speed-up"
_OTHER_KEEP_RATES = "with other keep rates than its runs have measured"
TIMED_OTHERWISE = f"timed {_OTHER_KEEP_RATES}: repro bench time measures it again"
_SAME_MACS_PCT = 1.0  # maximum difference of MACs saving between the timed model and the runs, in percentage points


def images_s(timing: Timing) -> list[float]:
    """Return images per second of the row's model by turn; empty on a CPU, where absolute times are meaningless."""
    return [] if timing.setting.threads else [timing.setting.batch / seconds for _, seconds in timing.pairs]


def is_timed_otherwise(timing: Timing | None, row: RowContext) -> bool:
    """Return whether the timed model's keep rates differ from those of the runs, or no run has measured them."""
    if timing is None or not row.rests_on_data:
        return False
    return not row.cost.is_measured or abs(timing.macs_saving_pct - row.cost.physical_saving_pct) > _SAME_MACS_PCT


def why_not_timed(evidence: Evidence) -> str:
    """Return why a row has no timing."""
    method = evidence.config.method
    if method.weights is None and method.tokens is None:
        return "reference"
    if why_untimed(method) == BY_TRAINING:
        return f"{NOT_MEASURED}; {BY_TRAINING}"
    if not has_masked_weights(method):
        return NOT_MEASURED
    return MASKED_DENSE if method.tokens is None else f"{NOT_MEASURED}; {MASKED_DENSE}"


def time_note(row: RowContext) -> str:
    """Return how a row was timed, or why it was not."""
    evidence = row.evidence
    method, timing = evidence.config.method, evidence.timing
    if timing is None or (method.weights is None and method.tokens is None):
        return why_not_timed(evidence)
    low, high = timing.range_pct
    timed_as = timing.provenance.get("timed_as")
    shared = f"of {timed_as}, whose model has the same shape, " if timed_as else ""
    note = (
        f"{timing.faster_by}; forward pass in evaluation mode, fresh weights; "
        f"median of {count_of(len(timing.pairs), 'turn')} {shared}with {timing.reference}, quartiles {low:.1f} to "
        f"{high:.1f} %; {timing.macs_saving_pct:.1f} % fewer MACs as timed; {timing.setting.text}"
    )
    for other in evidence.timings_by_batch:
        differs_by_batch = other.setting == replace(timing.setting, batch=other.setting.batch)
        setting = f"batch {other.setting.batch}" if differs_by_batch else other.setting.text
        note += f"; {other.time_saving_pct:.1f} % at {setting}"
        if row.is_published_training and is_timed_otherwise(other, row):
            note += f" ({_OTHER_KEEP_RATES})"
    if row.is_published_training and is_timed_otherwise(timing, row):
        note = f"{note}; {TIMED_OTHERWISE}"
    return f"{note}; {MASKED_DENSE}" if has_masked_weights(method) else note
