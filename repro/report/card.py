"""The reproducibility card: the nine variables by which papers are scored, filled from the provenance of records.

What no record says is shown as not stated; nothing here is typed in.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict, TypeAdapter

from repro.errors import UserError
from repro.report import escaping
from repro.report.evidence import Evidence, SeedRun, read_table
from repro.rows import Row, Table
from repro.runs.checking import checked
from repro.runs.files import read_object, write_json, write_text
from repro.runs.provenance import REPOSITORY
from repro.runs.record import Record

_TEMPLATES = Path(__file__).resolve().parent / "templates"
NOT_STATED = "not stated"


_AFFILIATION, _PSEUDOCODE = "Affiliation", "Pseudocode"
# What a reader is told where a variable has no fact.
_WHY_NOT = {
    _AFFILIATION: "no record knows who ran it; repro card TABLE --affiliation 'a lab' says it, and is remembered",
    _PSEUDOCODE: "no finished run has a method of ours to describe",
    "Code": "no finished run was made from a git commit",
    "Data": "no finished run says what it read",
    "Splits": "no finished run says what it read",
    "Hardware": "the provenance of the finished runs names no processor and no GPU",
    "Software versions": "the provenance of the finished runs names none",
}


@dataclass(frozen=True)
class Variable:
    """One of the nine: its name, what this reproduction states of it, a fact a line, and why where that is nothing."""

    name: str
    facts: tuple[str, ...]
    why_not: str = ""

    @property
    def is_stated(self) -> bool:
        """Whether there is a fact."""
        return bool(self.facts)


@dataclass(frozen=True)
class Card:
    """All nine, over the finished runs of a table at one scale."""

    table: str
    title: str
    paper: str
    scale: str
    runs: int
    variables: tuple[Variable, ...]

    @property
    def stated(self) -> int:
        """How many of the nine are stated."""
        return sum(variable.is_stated for variable in self.variables)


def card(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    seeds: Sequence[int],
    root: Path,
    overrides: Sequence[str] = (),
    affiliation: str = "",
) -> Card:
    """The card of a table's finished runs. Raises `UserError` where none is finished: there is nothing to describe."""
    every = read_table(table, rows, scale, seeds, root, overrides)
    filled = card_of(table, every, scale, seeds, overrides, affiliation)
    if filled is None:
        raise UserError(f"{table.name}: no finished run at scale {scale} below {root}; repro launch {table.name} first")
    return filled


def card_of(
    table: Table,
    every: Sequence[Evidence],
    scale: str,
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    affiliation: str = "",
) -> Card | None:
    """The card of evidence that has been read already; None where no run is finished."""
    own = [evidence for evidence in every if not evidence.row.run_of]  # a run is counted with the row that it is of
    finished = [(evidence, run) for evidence in own for run in evidence.runs.values() if run.state == "done"]
    if not finished:
        return None
    origins = [Record(run.path).provenance() for _, run in finished if run.path is not None]
    stated = (
        ("Research type", (f"experimental: a reproduction of {table.paper}",)),
        (_AFFILIATION, (affiliation,) if affiliation else ()),
        (_PSEUDOCODE, ()),
        ("Code", tuple(_code(origins))),
        ("Data", tuple(_distinct(_data(finished, origins)))),
        ("Splits", tuple(_distinct(_splits(finished)))),
        ("Hardware", tuple(_distinct(map(_hardware, origins)))),
        ("Software versions", tuple(_distinct(map(_software, origins)))),
        ("Experiment set-up", tuple(_setup(finished, scale, seeds, overrides))),
    )
    methods = _distinct(_methods(finished))
    why_not = _WHY_NOT | ({_PSEUDOCODE: f"the code itself is to be read: {'; '.join(methods)}"} if methods else {})
    variables = tuple(Variable(name, facts, "" if facts else why_not[name]) for name, facts in stated)
    return Card(table.name, table.title, table.paper, scale, len(finished), variables)


def remembered_affiliation(folder: Path) -> str:
    """The affiliation that the card in `folder` was last given; empty where there is none."""
    file, say_again = folder / "card.json", f"remove it, and say it again (repro card {folder.name} --affiliation ...)"
    found = checked(file, _REMEMBERED, read_object(file, say_again) or {}, say_again)
    facts = [fact for one in found.variables for fact in one.facts if one.name == _AFFILIATION]
    return facts[0] if facts else ""


class _Said(BaseModel):
    """A variable in card.json."""

    model_config = ConfigDict(strict=True)

    name: str
    facts: list[str]


class _Remembered(BaseModel):
    """What is read again of card.json."""

    variables: list[_Said] = []


_REMEMBERED = TypeAdapter(_Remembered)


def write_card(filled: Card, folder: Path) -> list[Path]:
    """Write `card.md` and `card.json` into `folder`; returns their paths."""
    write_text(folder / "card.md", markdown_card(filled), is_kept=False)
    write_json(folder / "card.json", {"schema": 1, "stated": filled.stated, **asdict(filled)})
    return [folder / "card.md", folder / "card.json"]


def markdown_card(filled: Card) -> str:
    """The card as GitHub's Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=escaping.markdown,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md").render(card=filled, not_stated=NOT_STATED)


def _distinct(facts: Iterable[str]) -> list[str]:
    return [fact for fact in dict.fromkeys(facts) if fact]


def _methods(finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    """The file of each part that trained, with its own first sentence."""
    for evidence in {id(evidence): evidence for evidence, _ in finished}.values():
        for part in (evidence.config.method.weights, evidence.config.method.tokens):
            if part is not None and part.target:
                path = Path(*part.target.split(".")[:-1]).with_suffix(".py")
                # Read, not imported: a method's module brings torch.
                words = ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))) or ""
                yield f"{path.as_posix()} ({words.splitlines()[0].rstrip('.') if words else 'no description'})"


def _code(origins: Sequence[dict[str, Any]]) -> Iterable[str]:
    for commit in _distinct(str(origin.get("commit") or "") for origin in origins):
        mine = [origin for origin in origins if origin.get("commit") == commit]
        changed = sum(bool(origin.get("dirty_diff_sha256")) for origin in mine)
        yield f"commit {commit}: {len(mine)} runs{f', {changed} of them with uncommitted changes' if changed else ''}"


def _data(finished: Sequence[tuple[Evidence, SeedRun]], origins: Sequence[dict[str, Any]]) -> Iterable[str]:
    for (evidence, _), origin in zip(finished, origins, strict=True):
        fingerprint = origin.get("data_fingerprint")
        yield f"{evidence.config.data.name}{f', fingerprint {fingerprint}' if fingerprint else ''}"


def _splits(finished: Sequence[tuple[Evidence, SeedRun]]) -> Iterable[str]:
    for evidence, _ in finished:
        data = evidence.config.data
        images = data.limit_train or data.images_per_epoch
        train = f"{images:,} training images" if images else "all training images"
        limited = (
            f", a fixed stratified subset of {data.limit_test:,} test images"
            if data.limit_test
            else ", the whole test split"
        )
        yield f"{data.name}: {train}{limited}; the same for every seed: no split depends on it"
        yield (
            f"{data.name}: no validation split; the best epoch, whose accuracy the verdicts use, is chosen on the test "
            "images, as the released code reports it; the last epoch's, which nothing chooses, is in the CSV"
        )


def _hardware(origin: dict[str, Any]) -> str:
    cards = []
    for gpu in origin.get("gpu") or []:
        driver = f", driver {gpu['driver']}" if gpu.get("driver") else ""
        cards.append(f"{gpu['name']} ({gpu['memory_gib']:g} GiB{driver})")
    cores = f", {origin['cpu_count']} cores" if origin.get("cpu_count") else ""
    cpu = f"{origin['cpu']}{cores}" if origin.get("cpu") else ""
    return "; ".join(filter(None, [cpu, ", ".join(cards)]))


def _software(origin: dict[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version]
    python = [f"Python {origin['python']}"] if origin.get("python") else []
    return ", ".join([*python, *versions, *([origin["os"]] if origin.get("os") else [])])


def _setup(
    finished: Sequence[tuple[Evidence, SeedRun]], scale: str, seeds: Sequence[int], overrides: Sequence[str]
) -> Iterable[str]:
    names = ", ".join(map(str, seeds))
    yield f"scale {scale}, seeds {names}{f', overrides {chr(32).join(overrides)}' if overrides else ''}"
    results = [run.result for _, run in finished if run.result is not None]
    for recipe in _distinct(evidence.config.recipe.name for evidence, _ in finished):
        settings = [evidence.config.own_recipe for evidence, _ in finished if evidence.config.recipe.name == recipe]
        for one in dict.fromkeys(settings):
            yield (
                f"recipe {one.name}: {one.optimizer}, {one.epochs} epochs, batch {one.global_batch}, "
                f"peak learning rate {one.peak_lr:g}, weight decay {one.weight_decay:g}, "
                f"{one.warmup_epochs:g} warm-up epochs"
            )
    wall_s = math.fsum(float(result["wall_s"]) for result in results)
    yield f"{len(finished)} finished runs, {wall_s / 3600:.2f} hours of training in all; configs in the records"
