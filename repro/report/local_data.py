"""Labels for accuracies and models that are not the published ones, with the same wording in every output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from repro.config.published_training import PUBLISHED_SCALE
from repro.errors import count_of
from repro.report.evidence import Evidence
from repro.tables.rows import Metric, Table

if TYPE_CHECKING:
    from repro.report.cells import Results, RowCells

OTHER_TRAINING = "not the published training"
PUBLISHED_BACKBONE = "of the published backbone"  # its MACs are shown with accuracies of smaller local models


def trained_at(every: Iterable[Evidence]) -> str:
    """Return the scale at which models were trained: `local scale`, or `paper scale (overrides)`.

    Models have the layers and heads of their backbone only at the paper's scale.
    """
    evidences = list(every)
    scales = ", ".join(dict.fromkeys(evidence.config.scale.name for evidence in evidences))
    return f"{scales} scale{'' if all(evidence.is_unchanged for evidence in evidences) else ' (overrides)'}"


def local_label(results: Results, label: str) -> str:
    """Return the label of a metric for training other than the published one; empty if there is none.

    Example: `local top-1, best epoch (digits, not ImageNet)`.
    """
    data, differs = local_data_of(results)
    scale = "" if results.scale == PUBLISHED_SCALE else f"{results.scale} "
    return f"{scale}{label} ({data}, {differs})" if data else ""


def local_data_of(results: Results) -> tuple[str, str]:
    """Return the data set of local accuracies, and how the training differs from the published one; empty if none."""
    local = [row for row in results.own_rows if not row.context.is_published_training]
    table, data_of_row = results.table, {row.row.id: row.evidence.config.data.name for row in local}
    if not local:
        return "", ""
    data = ", ".join(dict.fromkeys(map(table.label, data_of_row.values())))
    if all(name == table.dataset_of(row) for row, name in data_of_row.items()):
        return data, f"{OTHER_TRAINING}{' (overrides)' if results.scale == PUBLISHED_SCALE else ''}"
    return data, f"not {' or '.join(dict.fromkeys(table.label(table.dataset_of(row)) for row in data_of_row))}"


def accuracy_axis(results: Results, epoch: str = "best epoch") -> str:
    """Return the axis label of measured accuracies, `digits top-1, best epoch (%)`, with scale and caveat below."""
    data, differs = local_data_of(results)
    if not data:
        return published_axis(results, epoch)
    return f"{data} top-1, {epoch} (%)\n{results.scale} scale, {differs}"


def published_axis(results: Results, epoch: str = "best epoch") -> str:
    """Return the axis label of published accuracies, with the data sets of the rows."""
    table = results.table
    data = dict.fromkeys(table.label(table.dataset_of(row.row.id)) for row in results.rows)
    return f"{', '.join(data)} top-1, {epoch} (%)"


def heat_map_label(results: Results, metric: Metric) -> str:
    """Return the label of a heat map metric on other images or training: `Mean IoU (%) local (shapes, not X)`."""
    local = [
        row.context.segmentation
        for row in results.rows
        if row.context.segmentation is not None and not row.measured[metric.name].is_published_training
    ]
    data = ", ".join(dict.fromkeys(results.table.label(one.data) for one in local))
    if all(one.is_of(metric.dataset) for one in local):
        return f"{metric.label} {results.scale} ({data}, {OTHER_TRAINING})"
    return f"{metric.label} {results.scale} ({data}, not {_published_images(results.table, metric, data)})"


def images_of(row: RowCells, table: Table, metric: Metric) -> str:
    """Describe the images on which a heat map was evaluated, the number of seeds, and what is missing."""
    found, parts = row.context.segmentation, []
    assert found is not None
    if found.data:
        parts.append(f"{table.label(found.data)}, {count_of(found.images, 'image')} with a mask, n = {found.seeds}")
    if not row.measured[metric.name].sample or not row.measured[metric.name].is_published_training:
        if found.data and found.is_of(metric.dataset):
            parts.append(OTHER_TRAINING)
        else:
            parts.append(f"not run on {_published_images(table, metric, table.label(found.data))} at this scale")
    return "; ".join([*parts, *([found.missing] if found.missing else [])])


def _published_images(table: Table, metric: Metric, data: str) -> str:
    """Return the name of the published values' images, after `all of` if only some of them were used here."""
    name = table.label(metric.dataset)
    return f"all of {name}" if name in data.split(", ") else name
