"""Claims: the sentences that papers are cited for (`paper_tables/claims.yaml`), each with its verdict and evidence."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from repro.errors import UserError, did_you_mean
from repro.paper_tables import TABLES_DIR, load_sources, load_table, table_names
from repro.report.expressions import Call, Expression, ExpressionError, exact, is_truth, parse
from repro.report.operands import NOT_MEASURED, NOT_RUN, NOT_RUN_AT_SCALE, PARTIAL, Lines, Operand, measured
from repro.report.segmentation import INTERPRETATION
from repro.report.statistics import LEVEL
from repro.report.verdicts import UNDECIDED
from repro.rows import KINDS, PublishedValue, Row, Table

if TYPE_CHECKING:
    import pandas as pd

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
INCOMPLETE = "incomplete"
# What a claim reads while cells are missing: the first of these that one of them waits for.
_WAITING = (NOT_RUN_AT_SCALE, NOT_MEASURED, NOT_RUN, PARTIAL)

CLAIMS_FILE = TABLES_DIR / "claims.yaml"
_FUNCTIONS = {"measured": 2, "published": 2, "gain": 2}
_GAIN_METRIC = "top1_pct"
_KEYS = ("id", "table", "statement", "source", "expression", "tolerance", "reason")


@dataclass(frozen=True)
class Claim:
    """One claim as its file states it.

    `published` holds, by (row, metric), numbers that its table does not; `device` is what a claim on time is about, a
    kind (`GPU`) or part of a name (`V100`), empty for any other claim.
    """

    id: str
    table: str
    statement: str
    source: str
    expression: Expression
    tolerance: float
    reason: str
    published: Mapping[tuple[str, str], PublishedValue]
    device: str = ""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict, the cells behind it, and what the published values themselves say about it.

    `by_published` is the expression with published values in the place of measured ones: holds, does not hold,
    incomplete, or empty where it would compare each published value with itself.
    """

    claim: Claim
    verdict: str
    reason: str
    operands: tuple[Operand, ...]
    by_published: str
    published_operands: tuple[Operand, ...] = ()

    @property
    def evidence(self) -> tuple[str, ...]:
        """Every number behind the verdict and behind what the published values say, each once."""
        known = [operand.text for operand in (*self.operands, *self.published_operands) if operand.shown]
        return tuple(dict.fromkeys(known))


@functools.cache
def load_claims(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """Every claim, in the file's order.

    Raises `UserError`, naming the claim, for a missing key, an unknown source or kind, a wrong expression, and a row, a
    metric or a published value that its table does not have; a table that is not in `paper_tables/` yet may have any.
    """
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    claims: dict[str, Claim] = {}
    for entry in entries:
        place = f"{path.name}: claim {entry.get('id', '?')}"
        missing = [key for key in _KEYS if key not in entry]
        if missing or entry["id"] in claims:
            raise UserError(f"{place}: {f'no {missing[0]}' if missing else 'is there twice'}")
        claim = claims[entry["id"]] = _read(entry, place)
        if claim.table in table_names():
            _check_cells(claim, load_table(claim.table), place)
    return tuple(claims.values())


def _read(entry: Mapping[str, Any], place: str) -> Claim:
    sources = load_sources()
    own = {}
    for number in entry.get("published", ()):
        own[number["row"], number["metric"]] = PublishedValue(
            number["metric"], float(number["value"]), 0.0, number["kind"], number["source"]
        )
    for source in (entry["source"], *(value.source for value in own.values())):
        if source not in sources:
            raise UserError(f"{place}: source {source!r} unknown{did_you_mean(source, sources)}")
    for value in own.values():
        if value.kind not in KINDS:
            raise UserError(f"{place}: kind {value.kind!r} unknown; valid: {', '.join(KINDS)}")
    try:
        expression = parse(entry["expression"], _FUNCTIONS, frozenset({"tolerance"}))
    except ExpressionError as error:
        raise UserError(f"{place}: {error}") from None
    if not is_truth(expression.tree):
        raise UserError(f"{place}: comes to a number, not to true or false: {expression.text}")
    return Claim(
        entry["id"],
        entry["table"],
        entry["statement"],
        entry["source"],
        expression,
        float(entry["tolerance"]),
        entry["reason"],
        own,
        str(entry.get("device", "")),
    )


def _check_cells(claim: Claim, table: Table, place: str) -> None:
    ids = [row.id for row in table.every_row]
    for call in claim.expression.calls:
        row, metric = call.arguments
        if call.function == "published":
            if _published_value(row, metric, claim, table) is None:
                raise UserError(f"{place}: no published {metric} of {row} in {claim.table} or the claim")
            continue
        for word, valid in ((row, ids), (metric, ids if call.function == "gain" else list(table.metrics))):
            if word not in valid:
                raise UserError(f"{place}: {claim.table} has no {word!r}{did_you_mean(word, valid)}")
        read = [row.id for row in table.every_row if row.run_of and row.id in call.arguments]
        if read and (call.function == "gain" or table.metrics[metric].needs != INTERPRETATION):
            raise UserError(f"{place}: {read[0]} has no {metric} of its own, only what heat maps say")
        if call.function == "measured" and table.metrics[metric].needs == "device" and not claim.device:
            raise UserError(f"{place}: no device: {metric} is a time, which is one of a device (GPU, V100)")


def rows_beside(table: Table, rows: Sequence[Row], scale: str) -> tuple[Row, ...]:
    """The rows that claims about `table` rest on and that are not among `rows`: what is claimed of a table does not
    hang on which of its rows somebody wants to see."""
    calls = [call for claim in load_claims() if claim.table == table.name for call in claim.expression.calls]
    named = {word for call in calls if call.function != "published" for word in call.arguments}
    of_claims = [row for row in table.every_row if row.id in named]
    named |= {reference.id for row in of_claims if (reference := table.reference(row.backbone)) is not None}
    there = {row.id for row in rows}
    return tuple(row for row in table.every_row if row.id in named - there and row.is_run_at(scale))


def judge_claims(frame: pd.DataFrame, table: Table, claims: Iterable[Claim] | None = None) -> tuple[JudgedClaim, ...]:
    """The claims about `table`, judged by its frame, then those about tables that are not here, which no report has."""
    every = load_claims() if claims is None else tuple(claims)
    lines: dict[str, Mapping[str, Any]] = {
        str(line["row"]): line  # type: ignore[misc]  # a frame's columns are words
        for line in frame.to_dict("records")
    }
    known = set(table_names())
    own = [_judge(claim, lines, table) for claim in every if claim.table == table.name]
    absent = [_judge(claim, {}, None) for claim in every if claim.table not in known]
    return (*own, *absent)


def _judge(claim: Claim, lines: Lines, table: Table | None) -> JudgedClaim:
    """Holds where it does at 95 %, and does not where that is so at 95 %: of several chances to be right, or to be
    wrong, each needs its share of the 5 %."""
    expression = claim.expression
    by_published, instead = _by_published(claim, table)

    def operands_at(level: float) -> tuple[Operand, ...]:
        return tuple(_operand(call, claim, lines, table, level) for call in expression.calls)

    operands = operands_at(1 - (1 - LEVEL) / expression.chances)
    if _evaluate(claim, operands) is True:
        return JudgedClaim(claim, *_on_device(HOLDS, claim, operands), operands, by_published, instead)
    against = operands_at(1 - (1 - LEVEL) / expression.risks)
    if _evaluate(claim, against) is False:
        return JudgedClaim(claim, *_on_device(DOES_NOT_HOLD, claim, against), against, by_published, instead)
    return JudgedClaim(claim, *_open(claim, operands, table), operands, by_published, instead)


def _on_device(verdict: str, claim: Claim, operands: Iterable[Operand]) -> tuple[str, str]:
    """A time says something of the device that it was measured on: where that is no such one, the verdict is too."""
    others = [one.device for one in operands if one.device is not None and not one.device.is_a(claim.device)]
    if not others:
        return verdict, ""
    return f"{verdict} on {others[0].short}", f"{others[0].setting}; the claim is one of a {claim.device}"


def _open(claim: Claim, operands: Iterable[Operand], table: Table | None) -> tuple[str, str]:
    """The verdict of a claim that is not decided, and what it waits for."""
    if table is None:
        return NOT_RUN, f"paper_tables has no {claim.table} yet"
    waiting = [operand for operand in operands if operand.missing]
    for verdict in _WAITING:
        if any(operand.missing == verdict for operand in waiting):
            return verdict, "; ".join(dict.fromkeys(operand.why for operand in waiting if operand.why))
    return UNDECIDED, "; ".join(dict.fromkeys(filter(None, (operand.open_question for operand in operands))))


def _evaluate(claim: Claim, operands: Iterable[Operand]) -> bool | None:
    known = {call: operand.value for call, operand in zip(claim.expression.calls, operands, strict=True)}
    functions = {name: functools.partial(lambda name, *words: known[Call(name, words)], name) for name in _FUNCTIONS}
    value = claim.expression.value(functions, {"tolerance": claim.tolerance})
    return None if value is None else bool(value)


def _operand(call: Call, claim: Claim, lines: Lines, table: Table | None, level: float) -> Operand:
    if call.function == "published":
        return _published(call, claim, table)
    if table is None:
        return Operand(call, None, "", NOT_RUN)
    return measured(call, lines, table, level)


def _by_published(claim: Claim, table: Table | None) -> tuple[str, tuple[Operand, ...]]:
    """What the published values say of the claim, and those that it takes."""
    calls = claim.expression.calls
    cells = {call.arguments for call in calls if call.function != "published"}
    if cells <= {call.arguments for call in calls if call.function == "published"}:
        return "", ()
    operands = tuple(_published(call, claim, table) for call in calls)
    said = _evaluate(claim, operands)
    return INCOMPLETE if said is None else HOLDS if said else DOES_NOT_HOLD, operands


def _published(call: Call, claim: Claim, table: Table | None) -> Operand:
    """The published number in the place of a cell, whatever the expression asks for there."""
    is_gain = call.function == "gain"
    cells = [(row, _GAIN_METRIC) for row in call.arguments] if is_gain else [call.arguments]
    found = [_published_value(row, metric, claim, table) for row, metric in cells]
    values = [one.value for one in found if one is not None]
    words = Call("published gain" if is_gain else "published", call.arguments)
    if len(values) < len(found):
        return Operand(words, None, "", NOT_RUN, "no published value")
    number = values[0] - values[1] if is_gain else values[0]
    return Operand(words, exact(number), f"{number:.4g}")


def _published_value(row: str, metric: str, claim: Claim, table: Table | None) -> PublishedValue | None:
    own = claim.published.get((row, metric))
    if own is not None or table is None:
        return own
    return next((r.best_published(metric) for r in table.rows if r.id == row), None)
