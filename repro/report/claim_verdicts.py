"""Verdicts on claims, from the cells of a report.

Every value is an interval, with zero width for a count. A comparison is true if it holds on the whole interval, false
if it holds nowhere on it, and undecided otherwise. If any single one of k comparisons can make a claim true (`any`) or
false (`all`), each is tested at a level of 5 % / k (Bonferroni correction).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repro.errors import count_of
from repro.report.cells import TRAINED, VERBS, Measured, Results, RowCells
from repro.report.claims import Claim, Condition, Pair, Quantity, claims_of
from repro.report.measures import gain
from repro.report.statistics import interval_words, level_of_each
from repro.report.verdicts import (
    DECIDABLE,
    DOES_NOT_HOLD,
    HOLDS,
    INCOMPLETE,
    MISSING,
    NOT_MEASURED,
    NOT_RUN,
    NOT_RUN_AT_SCALE,
    PARTIAL,
    UNDECIDED,
)
from repro.tables.rows import Table

# A claim that is waiting for several of these gets the first as its verdict.
_WAITING = (NOT_RUN_AT_SCALE, NOT_MEASURED, NOT_RUN, PARTIAL)
_NOISE = 1e-9  # 80.2 - 80.0 is a little more than 0.2 in binary

Interval = tuple[float, float]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict and evidence.

    Attributes:
        reason: what an open claim is waiting for, or the device of a time; may be empty.
        evidence: every number behind the verdict and behind `by_published`, as text.
        by_published: the verdict with published values in place of measured ones: holds, does not hold, incomplete, or
            empty if each published value would be compared with itself.
    """

    claim: Claim
    verdict: str
    reason: str
    evidence: tuple[str, ...]
    by_published: str


def judge_claims(results: Results, claims: Sequence[Claim] | None = None) -> tuple[JudgedClaim, ...]:
    """Judge the claims about the table of `results` by its cells and those of `results.others`."""
    rows = {row.row.id: row for row in (*results.rows, *results.others)}
    claims = claims_of(results.table) if claims is None else claims
    return tuple(_judge(claim, rows, results.table) for claim in claims if claim.table == results.table.name)


def _judge(claim: Claim, rows: Mapping[str, RowCells], table: Table) -> JudgedClaim:
    comparisons = list(claim.holds_if.comparisons)
    measured = {one.quantity: _measured(one.quantity, rows) for one in comparisons}
    published = {one.quantity: _published(one.quantity, table) for one in comparisons}
    bounds = {one.bound: _number(one.bound, table) for one in comparisons}
    verdict, reason, level = _verdict(claim, measured, bounds, table)
    is_own = all(one.bound == one.quantity.names for one in comparisons)
    by_published = "" if is_own else _by_published(claim, bounds, published)
    evidence = [_words(quantity, value, level, table) for quantity, value in measured.items()]
    evidence += [_bound_words(one, bounds[one.bound], table) for one in comparisons if isinstance(one.bound, tuple)]
    if by_published:
        found = [(one.title(table), number) for one, number in published.items() if number is not None]
        evidence += [f"published {title} = {number:.4g}" for title, number in found]
    return JudgedClaim(claim, verdict, reason, tuple(dict.fromkeys(filter(None, evidence))), by_published)


def _bound_words(comparison: Condition, bound: float, table: Table) -> str:
    """Format a published bound: `published ROW Time saving (%) = 24.8 (claimed: at least)`."""
    assert isinstance(comparison.bound, tuple)
    operator = "" if comparison.operator == "within" else f" (claimed: {comparison.operator.replace('_', ' ')})"
    return f"published {Quantity('cell', comparison.bound).title(table)} = {bound:.4g}{operator}"


def _verdict(
    claim: Claim, measured: Mapping[Quantity, Measured], bounds: Mapping[float | Pair, float], table: Table
) -> tuple[str, str, float]:
    """Return the verdict, its reason, and the confidence level of the intervals behind it."""
    for verdict, answer, rule in ((HOLDS, True, "any"), (DOES_NOT_HOLD, False, "all")):
        level = level_of_each(deciders(claim.holds_if, rule))
        intervals = {quantity: _interval(value, level) for quantity, value in measured.items()}
        if _decide(claim, bounds, intervals) is answer:
            return *_with_device(verdict, claim, measured.values()), level
    level = level_of_each(deciders(claim.holds_if, "any"))
    return *_open(measured, level, table), level


def _measured(quantity: Quantity, rows: Mapping[str, RowCells]) -> Measured:
    absent = [row for row in quantity.rows if row not in rows]
    if absent:
        return Measured(TRAINED, state=MISSING, why_missing=f"{absent[0]} is not in this report")
    if quantity.kind == "gain":
        first, second = (rows[row].context for row in quantity.rows)
        return gain(first, second)
    return rows[quantity.names[0]].measured[quantity.names[1]]


def _number(bound: float | Pair, table: Table) -> float:
    if not isinstance(bound, tuple):
        return bound
    published = _published(Quantity("cell", bound), table)
    assert published is not None, "checked when the claim is read"
    return published


def _published(quantity: Quantity, table: Table) -> float | None:
    """Return the published value of a cell or gain; None if any value it needs is not published."""
    rows = {row.id: row for row in table.rows}
    found = [rows[row].best_published(quantity.metric) if row in rows else None for row in quantity.rows]
    values = [value.value for value in found if value is not None]
    if len(values) < len(found):
        return None
    return values[0] - values[1] if quantity.kind == "gain" else values[0]


def _by_published(
    claim: Claim, bounds: Mapping[float | Pair, float], published: Mapping[Quantity, float | None]
) -> str:
    intervals = {quantity: None if value is None else (value, value) for quantity, value in published.items()}
    found = _decide(claim, bounds, intervals)
    return INCOMPLETE if found is None else HOLDS if found else DOES_NOT_HOLD


def _decide(
    claim: Claim, bounds: Mapping[float | Pair, float], intervals: Mapping[Quantity, Interval | None]
) -> bool | None:
    """Return whether the claim's condition holds, or None if that is undecided. An interval of None means no value."""

    def decide(condition: Condition) -> bool | None:
        if not condition.members:
            interval, bound = intervals[condition.quantity], bounds[condition.bound]
            return None if interval is None else compare(interval, condition.operator, bound, claim.tolerance_of(bound))
        decided, decisive = [decide(member) for member in condition.members], bool(condition.any)
        if decisive in decided:
            return decisive
        return None if None in decided else not decisive

    return decide(claim.holds_if)


def compare(interval: Interval, operator: str, bound: float, tolerance: float) -> bool | None:
    """Return True if a comparison holds on the whole interval, False if it holds nowhere on it, and None otherwise."""
    low, high = interval
    limit = bound + tolerance
    if operator == "within":
        ends = abs(low - bound), abs(high - bound)
        low, high, limit = 0.0 if low <= bound <= high else min(ends), max(ends), tolerance
    elif operator in ("at_least", "more_than"):
        low, high, limit = -high, -low, tolerance - bound
    limit += -_NOISE if operator in ("more_than", "less_than") else _NOISE
    return True if high <= limit else False if low > limit else None


def deciders(condition: Condition, rule: str) -> int:
    """Return how many comparisons can each decide the condition alone: make it true (`any`) or false (`all`)."""
    if not condition.members:
        return 1
    counts = [deciders(member, rule) for member in condition.members]
    return sum(counts) if getattr(condition, rule) else max(counts)


def _interval(measured: Measured, level: float) -> Interval | None:
    return None if _waits_for(measured) or measured.value is None else measured.interval(level)


def _waits_for(measured: Measured) -> str:
    """Return the verdict of a claim that is waiting for this value; empty if the value can be used."""
    if measured.state == NOT_MEASURED:
        return NOT_MEASURED
    if not measured.is_published_training:
        return NOT_RUN_AT_SCALE
    if measured.state == DECIDABLE:
        return ""
    return PARTIAL if measured.state.startswith(PARTIAL) else NOT_RUN


def _with_device(verdict: str, claim: Claim, values: Iterable[Measured]) -> tuple[str, str]:
    """Return verdict and reason, naming the device of a time that was not measured on the claim's kind of device."""
    wanted = claim.device.lower()
    for setting in (one.setting for one in values if one.setting is not None):
        if wanted != setting.kind.lower() and wanted not in setting.device.lower():
            name = "CPU" if setting.kind == "CPU" else setting.device
            return f"{verdict} on {name}", f"{setting.text}; the claim is about a {claim.device}"
    return verdict, ""


def _open(measured: Mapping[Quantity, Measured], level: float, table: Table) -> tuple[str, str]:
    """Return the verdict of a claim that is not decided, and what it is waiting for."""
    waiting = {quantity: _waits_for(value) for quantity, value in measured.items()}
    for verdict in _WAITING:
        if verdict in waiting.values():
            whys = [
                f"{quantity.title(table)}: {value.why_missing}" if value.state == NOT_MEASURED else value.why_missing
                for quantity, value in measured.items()
                if waiting[quantity]
            ]
            return verdict, "; ".join(dict.fromkeys(filter(None, whys)))
    parts = (_why_undecided(quantity, value, level, table) for quantity, value in measured.items())
    return UNDECIDED, "; ".join(filter(None, parts))


def _why_undecided(quantity: Quantity, measured: Measured, level: float, table: Table) -> str:
    low, high = measured.interval(level)
    if low == high:
        return ""
    title = quantity.title(table)
    if math.isfinite(low):
        digits = _digits(quantity, measured)
        return f"{title}: the claim holds in a part of {low:.{digits}f} to {high:.{digits}f} only"
    if measured.setting is not None:
        return f"{title}: too few turns for a confidence interval"
    return f"{title}: one seed has no spread"


def _digits(quantity: Quantity, measured: Measured) -> int:
    """Return the number of decimals of a value and of its interval: one for a time in percent, otherwise two."""
    return 1 if measured.setting is not None and quantity.names[1].endswith("_pct") else 2


def _words(quantity: Quantity, measured: Measured, level: float, table: Table) -> str:
    """Format a value: `counted ROW Params (M) = 22.05`, with an interval unless exact; empty if missing."""
    if measured.value is None or not measured.is_comparable:
        return ""
    verb, title = "gain" if quantity.kind == "gain" else VERBS[measured.evidence], quantity.title(table)
    if not measured.sample:
        return f"{verb} {title} = {measured.value:.4g}"
    interval = measured.interval(level)
    sign = "+" if quantity.kind == "gain" else ""
    digits = _digits(quantity, measured)
    shown = [interval_words(interval, sign, digits, level)] if math.isfinite(interval[0]) else []
    if measured.setting is not None:
        between = shown or [f"too few for a {100 * level:.4g} % interval"]
        parts = [f"median of {count_of(measured.n, 'turn')}", f"{between[0]}; {measured.setting.text}"]
    else:
        parts = [*shown, measured.seeds]
    return f"{verb} {title} = {measured.value:{sign}.{digits}f} ({', '.join(parts)})"
