"""Claims: the sentences that papers are cited for (`paper_tables/claims.yaml`), each with its verdict and evidence."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from repro.errors import UserError, did_you_mean
from repro.report.expressions import Call, Expression, ExpressionError, parse
from repro.rows import KINDS, TABLES_DIR, PublishedValue, Table, load_sources, table_names

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
NOT_RUN_AT_SCALE = "not run at this scale"
NOT_RUN = "not run"
NOT_MEASURED = "not measured"
INCOMPLETE = "incomplete"

CLAIMS_FILE = TABLES_DIR / "claims.yaml"
_FUNCTIONS = {"measured": 2, "published": 2}
_KEYS = ("id", "table", "statement", "source", "expression", "tolerance", "reason")
# A metric's measured column in a frame, where it has another name than the metric.
_COLUMNS = {"top1_pct": "top1_best_pct", "top1_gain_pct": "gain_pct"}


@dataclass(frozen=True)
class Claim:
    """One claim as its file states it. `published` holds, by (row, metric), numbers that its table does not."""

    id: str
    table: str
    statement: str
    source: str
    expression: Expression
    tolerance: float
    reason: str
    published: Mapping[tuple[str, str], PublishedValue]


@dataclass(frozen=True)
class Operand:
    """A cell that a claim rests on. `missing` says why there is no value."""

    call: Call
    value: float | None
    missing: str = ""

    @property
    def text(self) -> str:
        """`measured deit_small/dense params_m = 22.05`."""
        shown = f"{self.value:.4g}" if self.value is not None else f"? ({self.missing})"
        return f"{self.call.function} {' '.join(self.call.arguments)} = {shown}"


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
        known = [operand.text for operand in (*self.operands, *self.published_operands) if operand.value is not None]
        return tuple(dict.fromkeys(known))


@functools.cache
def load_claims(path: Path = CLAIMS_FILE) -> tuple[Claim, ...]:
    """Every claim, in the file's order.

    Raises `UserError`, naming the claim, for a missing key, an unknown source or kind, or a wrong expression.
    """
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    sources = load_sources()
    claims: dict[str, Claim] = {}
    for entry in entries:
        place = f"{path.name}: claim {entry.get('id', '?')}"
        missing = [key for key in _KEYS if key not in entry]
        if missing or entry["id"] in claims:
            raise UserError(f"{place}: {f'no {missing[0]}' if missing else 'is there twice'}")
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
        claims[entry["id"]] = Claim(
            entry["id"],
            entry["table"],
            entry["statement"],
            entry["source"],
            expression,
            float(entry["tolerance"]),
            entry["reason"],
            own,
        )
    return tuple(claims.values())


def judge_claims(frame: pd.DataFrame, table: Table, claims: Iterable[Claim] | None = None) -> tuple[JudgedClaim, ...]:
    """The claims about `table`, judged by its frame, then those about tables that are not here, which no report has.

    Raises `UserError` for a claim about a row, a metric or a published value that its table does not have.
    """
    every = load_claims() if claims is None else tuple(claims)
    lines: dict[str, Mapping[str, Any]] = {
        str(line["row"]): line  # type: ignore[misc]  # a frame's columns are words
        for line in frame.to_dict("records")
    }
    known = set(table_names())
    own = [_judge(claim, lines, table) for claim in every if claim.table == table.name]
    absent = [_judge(claim, {}, None) for claim in every if claim.table not in known]
    return (*own, *absent)


def _judge(claim: Claim, lines: Mapping[str, Mapping[str, Any]], table: Table | None) -> JudgedClaim:
    def operand(call: Call) -> Operand:
        return _published(call, claim, table) if call.function == "published" else _measured(call, lines, claim, table)

    operands = tuple(operand(call) for call in claim.expression.calls)
    value = _evaluate(claim, operands)
    cells = {call.arguments for call in claim.expression.calls if call.function == "measured"}
    references = {call.arguments for call in claim.expression.calls if call.function == "published"}
    by_published, instead = "", tuple[Operand, ...]()
    if not cells <= references:
        instead = tuple(_published(call, claim, table, optional=True) for call in claim.expression.calls)
        said = _evaluate(claim, instead)
        by_published = INCOMPLETE if said is None else HOLDS if said else DOES_NOT_HOLD
    if value is not None:
        return JudgedClaim(claim, HOLDS if value else DOES_NOT_HOLD, "", operands, by_published, instead)
    whys = dict.fromkeys(operand.missing for operand in operands if operand.missing)
    verdict, reason = _undecided(tuple(whys), claim, table)
    return JudgedClaim(claim, verdict, reason, operands, by_published, instead)


def _undecided(whys: Sequence[str], claim: Claim, table: Table | None) -> tuple[str, str]:
    if table is None:
        return NOT_RUN, f"paper_tables has no {claim.table} yet"
    for verdict in (NOT_RUN_AT_SCALE, NOT_MEASURED):
        if any(why.startswith(verdict) for why in whys):
            return verdict, "; ".join(why for why in whys if why != verdict)
    return NOT_RUN, "; ".join(whys)


def _evaluate(claim: Claim, operands: Sequence[Operand]) -> bool | None:
    known = {call: operand.value for call, operand in zip(claim.expression.calls, operands, strict=True)}
    functions = {name: functools.partial(lambda name, *words: known[Call(name, words)], name) for name in _FUNCTIONS}
    value = claim.expression.value(functions, {"tolerance": claim.tolerance})
    return None if value is None else bool(value)


def _published(call: Call, claim: Claim, table: Table | None, *, optional: bool = False) -> Operand:
    row, metric = call.arguments
    own = claim.published.get((row, metric))
    if own is None and table is not None:
        own = next((r.best_published(metric) for r in table.rows if r.id == row), None)
    if own is None and not optional:
        raise UserError(f"claims.yaml: claim {claim.id}: no published {metric} of {row} in {claim.table} or the claim")
    # Named `published` whatever the expression asked for: it stands for a measured cell in what the papers say.
    return Operand(Call("published", call.arguments), own.value if own else None, "" if own else "no published value")


def _measured(call: Call, lines: Mapping[str, Mapping[str, Any]], claim: Claim, table: Table | None) -> Operand:
    row, metric = call.arguments
    if table is None:
        return Operand(call, None, NOT_RUN)
    ids = [r.id for r in table.rows]
    if row not in ids or metric not in table.metrics:
        word, valid = (row, ids) if row not in ids else (metric, list(table.metrics))
        raise UserError(f"claims.yaml: claim {claim.id}: {claim.table} has no {word!r}{did_you_mean(word, valid)}")
    line = lines.get(row)
    if line is None:
        return Operand(call, None, f"{row} is not in this report")
    needs = table.metrics[metric].needs
    if needs == "training" and line["local_data"]:
        return Operand(call, None, NOT_RUN_AT_SCALE)
    value = float(line[_COLUMNS.get(metric, metric)])
    if needs == "training" and line["state"] != "done":
        return Operand(call, None, f"{row}: {line['state']}")
    if not math.isnan(value):
        return Operand(call, value)
    return Operand(call, None, NOT_MEASURED if needs == "device" else f"{row}: {line['state']}")
