"""The notes below a table: what its marks, conventions and verdicts mean, and all that its columns have no room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.report.segmentation import segmentation_notes
from repro.report.times import MASKED_DENSE
from repro.report.verdicts import NO_PUBLISHED_VALUE
from repro.rows import KINDS, Metric, PublishedValue, Row, Table

KIND_MARKS = dict(zip(KINDS, ("", "c", "d", "g"), strict=True))
_KIND_MEANINGS = {
    "confirmed": "from the authors themselves (paper, abstract or repository)",
    "cited": "as a citing or earlier work reports it",
    "derived": "calculated from other published values",
    "digitised": "read off a published figure",
}


@dataclass(frozen=True)
class Note:
    """A heading and its items, each a sentence or a list entry."""

    title: str
    items: tuple[str, ...]


def notes(
    lines: Sequence[Mapping[str, Any]], rows: Mapping[str, Row], table: Table, told: Sequence[Metric], local: str
) -> tuple[Note, ...]:
    """The notes of a frame's lines. Empty ones go.

    Args:
        told: the metrics whose published values have no columns.
        local: what the accuracies are where they are not the published training's; else empty.
    """
    shown = [rows[line["row"]] for line in lines]
    candidates = (
        Note("Marks", tuple(_marks(lines, shown))),
        Note("Conventions and tolerances", tuple(_conventions(table))),
        Note("Verdicts", tuple(_verdicts())),
        Note(f"Accuracy over seeds: {local}" if local else "Accuracy over seeds", tuple(_over_seeds(lines, rows))),
        Note("Time saving as measured here", tuple(_timings(lines))),
        Note("Heat maps held against true masks", tuple(segmentation_notes(lines, table))),
        Note("Published for single rows", tuple(_told(lines, rows, told))),
        Note("Further published values", tuple(_further(shown, table))),
        Note("Rows without a published value", _listed(row.id for row in shown if not row.published)),
        Note("Rows that are not finished", tuple(_unfinished(lines))),
        Note("Sources", tuple(_sources(shown, table))),
    )
    return tuple(note for note in candidates if note.items)


def _marks(lines: Sequence[Mapping[str, Any]], shown: Sequence[Row]) -> Iterable[str]:
    used = {value.kind for row in shown for value in row.published}
    for kind in KINDS:
        if kind in used:
            mark = KIND_MARKS[kind]
            yield f"{f'mark {mark}' if mark else 'no mark'}: {kind}, {_KIND_MEANINGS[kind]}"
    for why in dict.fromkeys(line["cost_note"] for line in lines if line["cost_note"]):
        yield f"mark e: {why}"
    if any(MASKED_DENSE in line["time_note"] for line in lines):
        yield (
            "mark m: single weights are removed by masks on dense matrices, which take as long as before: "
            "the FLOPs saving of these weights is no saving of time"
        )


def _conventions(table: Table) -> Iterable[str]:
    yield (
        "Params and MACs are counted on the published backbone at every scale; MACs are multiply-accumulates of one "
        "image, attention products among them, and what the paper calls FLOPs"
    )
    for metric in table.metrics.values():
        words = f"{metric.label}: tolerance {metric.tolerance:g}, {metric.reason}"
        yield f"{words}; {metric.note}" if metric.note else words


def _verdicts() -> Iterable[str]:
    yield (
        "reproduced: |measured - published| is at most max(tolerance, 1.96 s/sqrt(n)) plus the uncertainty of the "
        "published value; s is the sample standard deviation over n seeds"
    )
    yield (
        "top-1 is the mean over seeds of the best epoch's accuracy, as the released code reports it, and the verdict "
        "is held against that; the last epoch's is in the CSV"
    )
    yield "Params, MACs and FLOPs need no training and are decided at every scale; accuracy only at scale paper"
    yield (
        "a time is decided where the 95 % interval of the median over its turns lies on one side of the tolerance's "
        "ends, else undecided, as with fewer than six turns; the words on CPU mark one that no GPU has been timed for: "
        "evidence, and no verdict on a published time"
    )
    yield "a gain is the mean over seeds of the difference to the row of the same backbone with nothing removed"


def _timings(lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for line in lines:
        if not math.isnan(line["time_saving_pct"]):
            yield f"{line['row']}: {line['time_saving_pct']:.1f} %: {line['time_note']}"


def _over_seeds(lines: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> Iterable[str]:
    for line in lines:
        if not line["n_seeds"] or rows[line["row"]].run_of:
            continue
        at = "local_" if line["local_data"] else ""
        best = _spread(line, f"{at}top1_best_pct", f"{at}top1_std_pct", f"{at}top1_ci95", "")
        last = _spread(line, f"{at}top1_last_pct", f"{at}top1_last_std_pct", "", "")
        words = f"{line['row']}: n = {line['n_seeds']}; best epoch {best}; last epoch {last}"
        if not math.isnan(line[f"{at}gain_pct"]):
            gain = _spread(line, f"{at}gain_pct", f"{at}gain_std_pct", f"{at}gain_ci95", "+")
            pairs = int(line[f"{at}gain_n"])
            words += f"; gain {gain}, n = {pairs} pair{'' if pairs == 1 else 's'}"
        yield words


def _spread(line: Mapping[str, Any], mean: str, std: str, interval: str, sign: str) -> str:
    """80.18 ± 0.10 (95 % interval 79.93 to 80.43), as far as there is more than one seed."""
    words = f"{line[mean]:{sign}.2f}"
    if math.isnan(line[std]):
        return words
    words += f" ± {line[std]:.2f}"
    if not interval:
        return words
    return (
        f"{words} (95 % interval {line[f'{interval}_low_pct']:{sign}.2f} to {line[f'{interval}_high_pct']:{sign}.2f})"
    )


def _told(lines: Sequence[Mapping[str, Any]], rows: Mapping[str, Row], told: Sequence[Metric]) -> Iterable[str]:
    for metric in told:
        for line in lines:
            published = rows[line["row"]].best_published(metric.name)
            if published is None:
                continue
            delta = line[f"{metric.name}_delta"]
            measured = "" if math.isnan(delta) else f", measured {published.value + delta:.2f}"
            verdict = line[f"{metric.name}_verdict"]
            yield f"{line['row']}, {metric.label}: published {describe(published)}{measured}: {verdict}"


def describe(published: PublishedValue) -> str:
    """A published value in words: 71.81 ± 0.03 (digitised, svite_figure: the line drawn in the figure)."""
    spread = f" ± {published.uncertainty:g}" if published.uncertainty else ""
    note = f": {published.note}" if published.note else ""
    return f"{published.value:g}{spread} ({published.kind}, {published.source}{note})"


def _further(shown: Sequence[Row], table: Table) -> Iterable[str]:
    for row in shown:
        for metric in table.metrics.values():
            used = row.best_published(metric.name)
            others = [value for value in row.published if value.metric == metric.name and value is not used]
            if used and others:
                yield f"{row.id}, {metric.label}: {describe(used)}; also {'; '.join(map(describe, others))}"


def _unfinished(lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line["state"] != "done":
            words = f"{line['state']}: {line['reason']}" if line["reason"] else line["state"]
            reasons.setdefault(words, []).append(line["row"])
    for words, ids in reasons.items():
        yield f"{words} ({', '.join(ids)})"


def _sources(shown: Sequence[Row], table: Table) -> Iterable[str]:
    used = {value.source for row in shown for value in row.published}
    for name, source in table.sources.items():
        if name in used:
            yield f"{name}: {source.citation} ({source.where})"


def _listed(ids: Iterable[str]) -> tuple[str, ...]:
    words = ", ".join(ids)
    return (f"{words}: {NO_PUBLISHED_VALUE} was found in any source",) if words else ()
