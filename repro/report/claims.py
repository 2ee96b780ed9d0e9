"""Claims: the statements that papers are cited for, from `paper_tables/claims.yaml` and from folders in REPRO_PATH.

A claim holds if its condition holds: a comparison of a cell or a gain with a bound, or several comparisons under `all`
or `any`:

    holds_if: {cell: [ROW, METRIC], within: published}
    holds_if:
      any:
        - {gain: [ROW, OTHER], more_than: 0}
        - {gain: [THIRD, OTHER], more_than: 0}
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from repro.errors import UserError, did_you_mean
from repro.locations import table_dirs
from repro.tables.loader import load_sources, table_names
from repro.tables.rows import Table
from repro.typed_files import read_yaml

CLAIMS_FILE = "claims.yaml"
OPERATORS = ("within", "at_least", "at_most", "more_than", "less_than")

Pair = tuple[str, str]


class PublishedCell(BaseModel):
    """A bound given by the published value of a cell (row, metric)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    published: Pair


class Quantity(NamedTuple):
    """The left side of a comparison: a cell (row, metric), or the top-1 gain of one row over another (row, row)."""

    kind: str
    names: Pair

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows involved."""
        return self.names if self.kind == "gain" else self.names[:1]

    @property
    def metric(self) -> str:
        """The metric that is compared."""
        return "top1_pct" if self.kind == "gain" else self.names[1]

    def title(self, table: Table) -> str:
        """Return `ROW FLOPs saving (%)`, with the label of the table's column, or `ROW over OTHER`."""
        first, second = self.names
        return f"{first} over {second}" if self.kind == "gain" else f"{first} {table.metrics[second].label}"


class Condition(BaseModel):
    """Either conditions under `all` or `any`, or a comparison: a cell or a gain, an operator, and a bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    all: tuple[Condition, ...] = ()
    any: tuple[Condition, ...] = ()
    cell: Pair | None = None
    gain: Pair | None = None
    within: float | PublishedCell | Literal["published"] | None = None
    at_least: float | PublishedCell | Literal["published"] | None = None
    at_most: float | PublishedCell | Literal["published"] | None = None
    more_than: float | PublishedCell | Literal["published"] | None = None
    less_than: float | PublishedCell | Literal["published"] | None = None

    @model_validator(mode="after")
    def _has_one_form(self) -> Condition:
        keys = sorted(self.model_fields_set)
        if keys in (["all"], ["any"]) and self.members:
            return self
        if len(keys) != 2 or len({"cell", "gain"} & {*keys}) != 1 or len({*OPERATORS} & {*keys}) != 1:
            operators = ", ".join(OPERATORS)
            raise ValueError(f"should be all or any with a list, or one of cell, gain with one of {operators}")
        if self.gain is not None and getattr(self, self.operator) == "published":
            raise ValueError("of a gain should have a number or {published: [row, metric]} as its bound")
        return self

    @property
    def members(self) -> tuple[Condition, ...]:
        """The conditions under `all` or `any`; empty for a comparison."""
        return self.all or self.any

    @property
    def comparisons(self) -> Iterator[Condition]:
        """All comparisons within the condition, in order."""
        if not self.members:
            yield self
        for member in self.members:
            yield from member.comparisons

    @property
    def quantity(self) -> Quantity:
        """The quantity that a comparison compares with its bound."""
        return Quantity("gain", self.gain) if self.gain is not None else Quantity("cell", self.cell or ("", ""))

    @property
    def operator(self) -> str:
        """The operator of a comparison."""
        return next(operator for operator in OPERATORS if operator in self.model_fields_set)

    @property
    def bound(self) -> float | Pair:
        """The bound of a comparison: a number, or a cell whose published value is the bound."""
        bound = getattr(self, self.operator)
        if isinstance(bound, PublishedCell):
            return bound.published
        return self.cell if bound == "published" and self.cell is not None else bound


class Claim(BaseModel):
    """A claim.

    Attributes:
        tolerance: widens each bound in favour of the claim, in the unit of the compared quantity.
        tolerance_pct: the same, in percent of the bound.
        device: kind (`GPU`) or model (`V100`) of the device that a claim about time refers to; empty for other claims.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    table: str
    statement: str
    source: str
    holds_if: Condition
    reason: str
    tolerance: float | None = None
    tolerance_pct: float | None = None
    device: str = ""

    @model_validator(mode="after")
    def _has_one_tolerance(self) -> Claim:
        if (self.tolerance is None) == (self.tolerance_pct is None):
            raise ValueError("should have one of tolerance and tolerance_pct")
        return self

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows involved, without duplicates."""
        return tuple(dict.fromkeys(row for one in self.holds_if.comparisons for row in one.quantity.rows))

    def tolerance_of(self, bound: float) -> float:
        """Return the tolerance in the unit of `bound`."""
        return self.tolerance if self.tolerance is not None else abs(bound) * (self.tolerance_pct or 0.0) / 100

    @property
    def tolerance_text(self) -> str:
        """`tolerance 0.2 (that of the accuracy columns)`."""
        number = f"{self.tolerance_pct:g} %" if self.tolerance is None else f"{self.tolerance:g}"
        return f"tolerance {number} ({self.reason})"


class Ordering(BaseModel):
    """A pair of rows, of which `above` has the higher published accuracy (`repro.report.orderings`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    above: str
    below: str

    @property
    def name(self) -> str:
        """`ROW > OTHER`."""
        return f"{self.above} > {self.below}"


class ClaimsFile(BaseModel):
    """The contents of `claims.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claims: tuple[Claim, ...] = ()
    orderings: tuple[Ordering, ...] = ()


def claims_files() -> tuple[Path, ...]:
    """Return the project's claims file and those in the folders of REPRO_PATH."""
    return tuple(file for folder in table_dirs() if (file := folder / CLAIMS_FILE).is_file())


@functools.cache
def load_claims_file(path: Path) -> ClaimsFile:
    """Read a claims file. Rows and metrics are not checked, so that no table has to be read.

    Raises `UserError`, naming the claim or the line, for a missing or unknown key, an unknown table or source, and for
    two claims with the same id.
    """
    found = read_yaml(path, ClaimsFile)
    ids = [claim.id for claim in found.claims]
    for claim in found.claims:
        place = f"{path}: claim {claim.id}"
        check_name(claim.source, load_sources(), place, "source")
        check_name(claim.table, table_names(), place, "table")
        if ids.count(claim.id) > 1:
            raise UserError(f"{place}: is there twice; rename or remove one")
    for ordering in found.orderings:
        check_name(ordering.table, table_names(), f"{path}: {ordering.name}", "table")
    return found


def claims_of(table: Table) -> tuple[Claim, ...]:
    """Return the claims about a table in all files, the project's first.

    Raises `UserError`, naming the claim, for a row, metric or published value that is not in the table.
    """
    found = [(path, claim) for path in claims_files() for claim in load_claims_file(path).claims]
    own = [(path, claim) for path, claim in found if claim.table == table.name]
    for path, claim in own:
        _check_names(claim, table, f"{path}: claim {claim.id}")
    return tuple(claim for _, claim in own)


def _check_names(claim: Claim, table: Table, place: str) -> None:
    rows = {row.id: row for row in table.every_row}
    for comparison in claim.holds_if.comparisons:
        quantity, bound = comparison.quantity, comparison.bound
        check_name(quantity.metric, table.metrics, place, f"metric of {table.name}")
        needs = table.metrics[quantity.metric].needs
        for row in quantity.rows:
            check_name(row, rows, place, f"row of {table.name}")
            if bool(rows[row].reads_runs_of) != (needs == "interpretation"):
                raise UserError(f"{place}: {row} has no {quantity.metric} of its own")
        if needs == "device" and not claim.device:
            raise UserError(f"{place}: no device: {quantity.metric} is a time, which is one of a device (GPU, V100)")
        if isinstance(bound, tuple) and (bound[0] not in rows or rows[bound[0]].best_published(bound[1]) is None):
            raise UserError(f"{place}: no published {bound[1]} of {bound[0]} in {table.name}")


def check_name(name: str, valid: Iterable[str], place: str, what: str) -> None:
    """Raise `UserError`, suggesting the closest valid name, if a name is not valid."""
    if name not in valid:
        raise UserError(f"{place}: {what} {name!r} unknown{did_you_mean(name, valid)}")


def rows_in_claims(table: Table) -> set[str]:
    """Return the ids of the rows involved in claims about `table`."""
    return {row for claim in claims_of(table) for row in claim.rows}
