"""What a report says of a row's time: its columns, how it was measured, and whether it is one of the model at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from repro.measure.cost import Cost, rests_on_data
from repro.report.evidence import Evidence
from repro.report.statistics import median_interval
from repro.runs.timing import Timing
from repro.sparsity.budgets import NEURON

# The saving, and images a second, of each turn, as text: what an interval of any level is made from.
BY_TURN, IMAGES_BY_TURN = "time_by_turn_pct", "img_s_by_turn"
# Between which ends the median of the turns lies (95 %; empty where they are too few), after how many, and on what:
# `CPU` or `GPU`, then in full.
TIME_COLUMNS = (
    *("time_low_pct", "time_high_pct", "time_turns", BY_TURN, IMAGES_BY_TURN),
    *("time_on", "time_device", "time_setting"),
)

MASKED_DENSE = "masked-dense weights: no speed-up"
NOT_TIMED = "not measured"
_OTHER_KEEP_RATES = "with other keep rates than its runs have measured"
TIMED_OTHERWISE = f"timed {_OTHER_KEEP_RATES}: repro bench time measures it again"
_SAME_MACS_PCT = 1.0  # points of the MACs saving by which a timed model may differ from what the runs kept


def time_values(timing: Timing | None) -> dict[str, float | int | str | None]:
    """The columns of a timing; none for a row that has none."""
    if timing is None:
        return {}
    low, high = median_interval(timing.savings_pct)
    return {
        "time_low_pct": low if math.isfinite(low) else None,
        "time_high_pct": high if math.isfinite(high) else None,
        "time_turns": len(timing.pairs),
        BY_TURN: write_by_turn(timing.savings_pct),
        IMAGES_BY_TURN: write_by_turn(images_s(timing)),
        "time_on": "CPU" if timing.setting.threads else "GPU",
        "time_device": timing.setting.device,
        "time_setting": timing.setting.text,
    }


def images_s(timing: Timing) -> list[float]:
    """Images a second of the row's model, turn by turn; none on a CPU: others use it, and an absolute time means
    nothing there."""
    return [] if timing.setting.threads else [timing.setting.batch / seconds for _, seconds in timing.pairs]


def write_by_turn(values: Sequence[float]) -> str:
    """Values turn by turn as one cell."""
    return " ".join(f"{value:.6g}" for value in values)


def read_by_turn(text: str) -> list[float]:
    """What `write_by_turn` wrote, to six digits."""
    return [float(word) for word in text.split()]


def is_timed_otherwise(timing: Timing | None, cost: Cost, evidence: Evidence) -> bool:
    """Whether the timed model keeps other shares of its tokens than the runs have measured, or they have not."""
    if timing is None or not rests_on_data(evidence.config.method):
        return False
    return not cost.is_measured or abs(timing.macs_saving_pct - cost.physical_saving_pct) > _SAME_MACS_PCT


def time_note(cost: Cost, evidence: Evidence, *, is_published_training: bool) -> str:
    """How a row's time was measured, or why it has none: masked-dense weights run as long as dense ones."""
    method, timing = evidence.config.method, evidence.timing
    if method.weights is None and method.tokens is None:
        return "reference"
    weights = method.weights
    if timing is None and weights is not None and weights.block == NEURON:
        return f"{NOT_TIMED}; training decides which heads and neurons leave: repro export times the finished model"
    is_masked = weights is not None and weights.distribution is not None
    if timing is None:
        if is_masked:
            return MASKED_DENSE if method.tokens is None else f"{NOT_TIMED}; {MASKED_DENSE}"
        return NOT_TIMED
    low, high = timing.range_pct
    words = (
        f"{timing.faster_by}; forward pass in evaluation mode, fresh weights; "
        f"median of {len(timing.pairs)} turns with {timing.reference}, quartiles {low:.1f} to "
        f"{high:.1f} %; {timing.macs_saving_pct:.1f} % fewer MACs as timed; {timing.setting.text}"
    )
    for beside in evidence.timings_beside:
        is_alike = beside.setting == replace(timing.setting, batch=beside.setting.batch)
        where = f"batch {beside.setting.batch}" if is_alike else beside.setting.text
        words += f"; {beside.time_saving_pct:.1f} % at {where}"
        # In other words than the column's own: those take a verdict away.
        if is_published_training and is_timed_otherwise(beside, cost, evidence):
            words += f" ({_OTHER_KEEP_RATES})"
    if is_published_training and is_timed_otherwise(timing, cost, evidence):
        words = f"{words}; {TIMED_OTHERWISE}"
    return f"{words}; {MASKED_DENSE}" if is_masked else words
