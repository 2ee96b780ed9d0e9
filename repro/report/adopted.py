"""Third-party weights in a report: shown next to the measurements of runs, never in place of them."""

from __future__ import annotations

from collections.abc import Sequence

from repro.report.format import symbol, tone
from repro.report.measures import BEST_METRIC
from repro.report.verdicts import NO_PUBLISHED_VALUE, OTHER_DATA, judge
from repro.runs.adopted import AdoptedWeights
from repro.tables.rows import Row, Table

TITLE = "Top-1 of weights that others have trained (%)"


def weights_verdict(table: Table, row: Row, adopted: AdoptedWeights) -> str:
    """Return the verdict of these weights on the published accuracy; `other data` if evaluated on different data.

    The tolerance is that of the accuracy column for a single seed.
    """
    published = row.best_published(BEST_METRIC)
    if published is None:
        return NO_PUBLISHED_VALUE
    if not adopted.are_comparable_on(table.dataset_of(row.id)):
        return OTHER_DATA
    return judge(adopted.top1_pct, published, table.metrics[BEST_METRIC])


def with_symbol(table: Table, row: Row, adopted: AdoptedWeights) -> str:
    """Format the accuracy with the symbol of its verdict: `80.12 ✓`."""
    return f"{adopted.top1_pct:.2f} {symbol(weights_verdict(table, row, adopted))}".rstrip()


def tone_of(table: Table, row: Row, every: Sequence[AdoptedWeights]) -> str:
    """Return the tone that all verdicts have in common, or `quiet` if they differ."""
    tones = {tone(weights_verdict(table, row, adopted)) for adopted in every}
    return tones.pop() if len(tones) == 1 else "quiet"


def describe(table: Table, row: Row, adopted: AdoptedWeights) -> str:
    """Describe adopted weights in one line."""
    data, file, published = adopted.data, adopted.file, row.best_published(BEST_METRIC)
    images = f"all {data['of']:,}" if data["images"] == data["of"] else f"{data['images']:,} of the {data['of']:,}"
    against = "" if published is None else f", published {published.value:g}"
    checks = "; ".join(f"{check.what} {check.found}, planned {check.planned}" for check in adopted.checks)
    return (
        f"{row.id}: {adopted.top1_pct:.2f} % on {images} test images of {table.label(data['name'])} "
        f"({weights_verdict(table, row, adopted)}{against}); {file.name}, sha256 {file.sha256}, from {file.origin}; "
        f"{'; '.join(filter(None, (checks, *adopted.notes)))}"
    )
