"""The notes below a table: marks, conventions, and details that do not fit in its columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from repro.config.method import Finetune
from repro.errors import count_of
from repro.report.adopted import describe as describe_weights
from repro.report.binomial import n_test_images
from repro.report.cells import Measured, Results
from repro.report.findings import describe_finding, load_findings
from repro.report.format import CONFLICT_MARK, ESTIMATED_MARK, KIND_MARKS, MASKED_MARK, describe, describe_conflict
from repro.report.local_data import images_of, local_label
from repro.report.measures import interval_of_gain, test_image_interval
from repro.report.segmentation import is_segmentation
from repro.report.statistics import interval_words
from repro.report.times import MASKED_DENSE, time_note
from repro.report.verdicts import NO_PUBLISHED_VALUE
from repro.tables.rows import KINDS

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


def notes(results: Results) -> tuple[Note, ...]:
    """Return the non-empty notes of a report."""
    over_seeds = local_label(results, "top-1")
    findings = [
        Note(f"Finding: {one.title}", tuple(describe_finding(one, results))) for one in load_findings(results.table)
    ]
    candidates = (
        *findings,
        Note("Marks", tuple(_marks(results))),
        Note("Conventions and tolerances", tuple(_conventions(results))),
        Note("Verdicts", _VERDICTS),
        Note(
            f"Accuracy over seeds: {over_seeds}" if over_seeds else "Accuracy over seeds", tuple(_over_seeds(results))
        ),
        Note("Time saving as timed here", tuple(_timings(results))),
        Note("Weights that others have trained, evaluated here", tuple(_adopted(results))),
        Note("Heat maps compared with true masks", tuple(_segmentation(results))),
        Note("Published values in conflict", tuple(_conflicts(results))),
        Note("Further published values", tuple(_further(results))),
        Note("Rows without a published value", tuple(_without_published(results))),
        Note("Rows that are not finished", tuple(_unfinished(results))),
    )
    return tuple(note for note in candidates if note.items)


def _marks(results: Results) -> Iterable[str]:
    used = {value.kind for row in results.rows for value in row.row.published}
    for kind in KINDS:
        if kind in used:
            mark = f"mark {KIND_MARKS[kind]}" if KIND_MARKS[kind] else "no mark"
            yield f"{mark}: {kind}, {_KIND_MEANINGS[kind]}"
    if any(cell.conflicting for cell in results.cells):
        yield f"mark {CONFLICT_MARK}: another source contradicts this value; see below"
    measured = [cell.measured for cell in results.cells]
    for note in dict.fromkeys(one.note for one in measured if one.note and one.note != MASKED_DENSE):
        yield f"mark {ESTIMATED_MARK}: {note}"
    if any(one.note == MASKED_DENSE for one in measured):
        yield (
            f"mark {MASKED_MARK}: masks remove single weights of dense matrices, which take as long as before: "
            "the FLOPs saving of these weights saves no time"
        )


def _conventions(results: Results) -> Iterable[str]:
    yield (
        "Params and MACs are counted for the published backbone at every scale; MACs are multiply-accumulates of one "
        "image, with attention products, and what the paper calls FLOPs"
    )
    yield from _shared_trainings(results)
    for metric in results.table.metrics.values():
        text = f"{metric.label}: tolerance {metric.tolerance:g}, {metric.reason}"
        yield f"{text}; {metric.note}" if metric.note else text


def _shared_trainings(results: Results) -> Iterable[str]:
    """Yield the rows that prune weights from the middle of another row's training, and the length of both parts."""
    rows: dict[tuple[str, float, float], list[str]] = {}
    for row in results.rows:
        method = row.evidence.config.method
        if isinstance(method.finetune, Finetune) and method.finetune.after < 1 and method.starts_from:
            parts = method.starts_from, method.finetune.after, method.finetune.epochs_fraction
            rows.setdefault(parts, []).append(row.row.id)
    for (origin, after, further), ids in rows.items():
        yield (
            f"{', '.join(ids)}: share the first {100 * after:g} % of the {origin} row's training and train for "
            f"{100 * further:g} % of its epochs after pruning: {100 * (after + further):g} % of its updates in all"
        )


_VERDICTS = (
    "reproduced: |measured - published| is at most max(tolerance, 1.96 s/sqrt(n)) plus the uncertainty of the "
    "published value; s is the sample standard deviation over n seeds",
    "top-1 is the mean over seeds of the best epoch's accuracy, as the released code reports it, and verdicts use it; "
    "the last epoch's is given below and in the CSV",
    "Params, MACs and FLOPs need no training and are decided at every scale; accuracy only at scale paper",
    "a time is decided if the 95 % interval of the median over its turns lies on one side of the tolerance's ends, "
    "otherwise it is undecided, as with fewer than six turns; a time on a CPU is evidence, but decides nothing about a "
    "time published for a GPU",
    "a gain is the mean over seeds of the difference to the row of the same backbone with nothing removed",
)


def _over_seeds(results: Results) -> Iterable[str]:
    for row in results.own_rows:
        if not row.evidence.n_done:
            continue
        best, last, gain = (row.measured[name] for name in ("top1_pct", "top1_last_pct", "top1_gain_pct"))
        text = f"{row.row.id}: n = {best.n}; best epoch {_interval(best)}"
        images = n_test_images(row.evidence.config.data)
        if images is not None and (over_images := test_image_interval(row)) is not None:
            text += f", over its {count_of(images, 'test image')} {over_images[0]:.2f} to {over_images[1]:.2f}"
        text += f"; last epoch {_interval(last)}"
        if gain.sample:
            spread = "" if gain.std is None else f" ± {gain.std:.2f}"
            over_both = interval_of_gain(row.evidence, row.context.reference)
            words = "" if over_both is None else f" ({interval_words(over_both, '+')}, over seeds or test images)"
            text += f"; gain {gain.value:+.2f}{spread}{words}, n = {count_of(gain.n, 'pair')}"
        yield text


def _interval(measured: Measured) -> str:
    """Format a value: `80.18 ± 0.10 (95 % interval 79.93 to 80.43)`, or only the value if there are too few seeds."""
    text = f"{measured.value:.2f}"
    if measured.std is None or measured.finite_interval is None:
        return text
    return f"{text} ± {measured.std:.2f} ({interval_words(measured.finite_interval)})"


def _timings(results: Results) -> Iterable[str]:
    for row in results.own_rows:
        if (timing := row.evidence.timing) is not None:
            yield f"{row.row.id}: {timing.time_saving_pct:.1f} %: {time_note(row.context)}"


def _adopted(results: Results) -> Iterable[str]:
    for row in results.own_rows:
        yield from (describe_weights(results.table, row.row, one) for one in row.evidence.adopted)


def _segmentation(results: Results) -> Iterable[str]:
    for row in results.rows:
        cells = [cell for cell in row.cells.values() if is_segmentation(cell.metric)]
        if not cells:
            continue
        text = f"{row.row.id}: {row.row.heat_map} of the runs of {row.row.reads_runs_of}"
        for cell in cells:
            if cell.measured.sample:
                text += f"; {cell.metric.label} {_interval(cell.measured)}"
        verdicts = dict.fromkeys(cell.verdict for cell in cells)
        yield f"{text}; {images_of(row, results.table, cells[0].metric)}; {', '.join(verdicts)}"


def _conflicts(results: Results) -> Iterable[str]:
    for cell in results.cells:
        if cell.conflicting:
            yield f"{cell.row.id}, {cell.metric.label}: {describe_conflict(cell)}"


def _further(results: Results) -> Iterable[str]:
    for row in results.rows:
        for cell in row.cells.values():
            values = [value for value in row.row.published if value.metric == cell.metric.name]
            others = [describe(value) for value in values if value not in (cell.published, *cell.conflicting)]
            if cell.published is not None and others:
                yield f"{row.row.id}, {cell.metric.label}: {describe(cell.published)}; also {'; '.join(others)}"


def _without_published(results: Results) -> Iterable[str]:
    ids = [row.row.id for row in results.rows if not row.row.published]
    if ids:
        yield f"{', '.join(ids)}: {NO_PUBLISHED_VALUE} was found in any source"


def _unfinished(results: Results) -> Iterable[str]:
    reasons: dict[str, list[str]] = {}
    for row in results.rows:
        state, reason = row.state, row.reason
        if state != "done":
            reasons.setdefault(f"{state}: {reason}" if reason else state, []).append(row.row.id)
    for reason, ids in reasons.items():
        yield f"{reason} ({', '.join(ids)})"
