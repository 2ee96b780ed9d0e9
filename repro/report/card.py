"""The reproducibility card: the nine variables on which papers are scored, filled in from the provenance of records.

A variable about which the records contain no fact is shown as not stated.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from repro.errors import count_of
from repro.files import write_json, write_text
from repro.report.cells import Results
from repro.report.evidence import Evidence, SeedRun
from repro.report.tables import markdown_environment
from repro.runs.provenance import REPOSITORY
from repro.runs.validation import read_validated

NOT_STATED = "not stated"
_AFFILIATION, _PSEUDOCODE = "Affiliation", "Pseudocode"
# Why a variable has no facts.
_WHY_NOT = {
    _AFFILIATION: "records do not have it; set it once with repro card TABLE --affiliation 'a lab'",
    _PSEUDOCODE: "no finished run has a method whose code is here",
    "Code": "no finished run was made from a git commit",
    "Data": "no finished run has a data fingerprint",
    "Splits": "no finished run has a data fingerprint",
    "Hardware": "the provenance of the finished runs names no processor and no GPU",
    "Software versions": "the provenance of the finished runs names no version",
}


@dataclass(frozen=True)
class Variable:
    """One of the nine variables: its name, its facts (one line each), and the reason if there are none."""

    name: str
    facts: tuple[str, ...]
    why_not: str = ""

    @property
    def is_stated(self) -> bool:
        """Whether the variable has any facts."""
        return bool(self.facts)


@dataclass(frozen=True)
class Card:
    """The nine variables for the finished runs of a table at one scale."""

    table: str
    title: str
    paper: str
    scale: str
    runs: int
    variables: tuple[Variable, ...]

    @property
    def stated(self) -> int:
        """Number of stated variables."""
        return sum(variable.is_stated for variable in self.variables)


def card_of(results: Results, affiliation: str = "") -> Card | None:
    """Return the card of the finished runs; None if no run is finished."""
    finished = [
        (evidence, run) for evidence in results.evidence for run in evidence.runs.values() if run.state == "done"
    ]
    if not finished:
        return None
    origins = [run.provenance for _, run in finished]
    stated = (
        ("Research type", (f"experimental: a reproduction of {results.table.paper}",)),
        (_AFFILIATION, (affiliation,) if affiliation else ()),
        (_PSEUDOCODE, ()),
        ("Code", tuple(_code(origins))),
        ("Data", tuple(_distinct(_data(finished)))),
        ("Splits", tuple(_distinct(_splits(finished)))),
        ("Hardware", tuple(_distinct(map(_hardware, origins)))),
        ("Software versions", tuple(_distinct(map(_software, origins)))),
        ("Experiment set-up", tuple(_setup(results, finished))),
    )
    methods = _distinct(_methods(finished))
    why_not = _WHY_NOT | ({_PSEUDOCODE: f"see the code: {'; '.join(methods)}"} if methods else {})
    variables = tuple(Variable(name, facts, "" if facts else why_not[name]) for name, facts in stated)
    table = results.table
    return Card(table.name, table.title, table.paper, results.scale, len(finished), variables)


def remembered_affiliation(folder: Path) -> str:
    """Return the affiliation stored in a table's cards at any scale; empty if there is none."""
    for file in sorted(folder.glob("*/card.json")):
        next_step = f"remove it, and give the affiliation again: repro card {folder.name} --affiliation ..."
        found = read_validated(file, _StoredCard, next_step) or _StoredCard()
        facts = [fact for one in found.variables for fact in one.facts if one.name == _AFFILIATION]
        if facts:
            return facts[0]
    return ""


class _StoredCard(BaseModel):
    """The part of card.json that is read back."""

    variables: list[Variable] = []


def write_card(filled: Card, folder: Path) -> list[Path]:
    """Write `card.md` and `card.json` into `folder`; return their paths."""
    write_text(folder / "card.md", markdown_card(filled), durable=False)
    write_json(folder / "card.json", {"schema": 1, "stated": filled.stated, **asdict(filled)})
    return [folder / "card.md", folder / "card.json"]


def markdown_card(filled: Card) -> str:
    """Return the card as GitHub-flavored Markdown."""
    return markdown_environment().get_template("card.md").render(card=filled, not_stated=NOT_STATED)


def _distinct(facts: Iterable[str]) -> list[str]:
    return [fact for fact in dict.fromkeys(facts) if fact]


def _methods(finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    """Yield the source file of each method, with the first line of its docstring."""
    for evidence in {id(evidence): evidence for evidence, _ in finished}.values():
        for part in (evidence.config.method.weights, evidence.config.method.tokens):
            if part is not None and part.target:
                path = Path(*part.target.split(".")[:-1]).with_suffix(".py")
                # Parsed rather than imported, because method modules import torch.
                words = ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))) or ""
                yield f"{path.as_posix()} ({words.splitlines()[0].rstrip('.') if words else 'no description'})"


def _code(origins: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for commit in _distinct(str(origin.get("commit") or "") for origin in origins):
        mine = [origin for origin in origins if origin.get("commit") == commit]
        changed = sum(bool(origin.get("dirty_diff_sha256")) for origin in mine)
        of_them = f", {changed} of them with uncommitted changes" if changed else ""
        yield f"commit {commit}: {count_of(len(mine), 'run')}{of_them}"


def _data(finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    for evidence, run in finished:
        fingerprint = run.provenance.get("data_fingerprint")
        yield f"{evidence.config.data.name}{f', fingerprint {fingerprint}' if fingerprint else ''}"


def _splits(finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    for evidence, _ in finished:
        data = evidence.config.data
        images = data.limit_train or data.images_per_epoch
        train = count_of(images, "training image") if images else "all training images"
        limited = (
            f", a fixed stratified subset of {count_of(data.limit_test, 'test image')}"
            if data.limit_test
            else ", the whole test split"
        )
        yield f"{data.name}: {train}{limited}; the same for every seed"
        yield (
            f"{data.name}: no validation split; the best epoch, whose accuracy the verdicts use, is chosen on the test "
            "images, as in the released code; the last epoch's accuracy is in the CSV"
        )


def _hardware(origin: Mapping[str, Any]) -> str:
    cards = []
    for gpu in origin.get("gpu") or []:
        driver = f", driver {gpu['driver']}" if gpu.get("driver") else ""
        cards.append(f"{gpu['name']} ({gpu['memory_gib']:g} GiB{driver})")
    cores = f", {count_of(origin['cpu_count'], 'core')}" if origin.get("cpu_count") else ""
    cpu = f"{origin['cpu']}{cores}" if origin.get("cpu") else ""
    return "; ".join(filter(None, [cpu, ", ".join(cards)]))


def _software(origin: Mapping[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version]
    python = [f"Python {origin['python']}"] if origin.get("python") else []
    return ", ".join([*python, *versions, *([origin["os"]] if origin.get("os") else [])])


def _setup(results: Results, finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    seeds = ", ".join(map(str, finished[0][0].runs))
    overrides = f", overrides {results.effective_overrides}" if results.effective_overrides else ""
    yield f"scale {results.scale}, seeds {seeds}{overrides}"
    for recipe in dict.fromkeys(evidence.config.effective_recipe for evidence, _ in finished):
        yield (
            f"recipe {recipe.name}: {recipe.optimizer}, {count_of(recipe.epochs, 'epoch')}, "
            f"batch {recipe.global_batch}, peak learning rate {recipe.peak_lr:g}, "
            f"weight decay {recipe.weight_decay:g}, {recipe.warmup_epochs:g} warm-up epochs"
        )
    wall_s = math.fsum(float(run.result["wall_s"]) for _, run in finished if run.result is not None)
    runs = count_of(len(finished), "finished run")
    yield f"{runs}, {wall_s / 3600:.2f} hours of training in all; configs in the records"
