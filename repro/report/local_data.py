"""How accuracies and models are named that are not the published ones: one wording for tables, figures, notes, page."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from repro.report.evidence import Evidence
from repro.report.verdicts import DECIDING_SCALE
from repro.rows import Table

PUBLISHED_BACKBONE = "of the published backbone"  # whose MACs stand beside accuracies of smaller local models


def trained_at(every: Iterable[Evidence]) -> str:
    """`local scale`, `paper scale (overrides)`: whose models these are, which have the backbone's name at every scale
    and its layers and heads at the paper's alone."""
    evidences = list(every)
    scales = ", ".join(dict.fromkeys(evidence.config.scale.name for evidence in evidences))
    return f"{scales} scale{'' if all(evidence.is_as_published for evidence in evidences) else ' (overrides)'}"


def local_title(frame: pd.DataFrame, table: Table) -> str:
    """`local top-1 (digits, not ImageNet)`; empty where every accuracy is one of the published training."""
    data, differs = local_data(frame, table)
    scale = frame["scale"].iloc[0]
    return f"{'' if scale == DECIDING_SCALE else f'{scale} '}top-1 ({data}, {differs})" if data else ""


def accuracy_axis(frame: pd.DataFrame, table: Table) -> str:
    """The label of an axis of accuracies: those of the table's data set, or what they are instead."""
    data, differs = local_data(frame, table)
    if not data:
        return published_axis(frame, table)
    return f"{frame['scale'].iloc[0]} scale: {data} top-1 (%),\n{differs}"


def published_axis(frame: pd.DataFrame, table: Table) -> str:
    """The same for published accuracies: of the images, or videos, of the frame's rows."""
    return f"{', '.join(dict.fromkeys(table.label(table.dataset_of(str(row))) for row in frame['row']))} top-1 (%)"


def local_data(frame: pd.DataFrame, table: Table) -> tuple[str, str]:
    """The data that the frame's local accuracies are of, and how they differ from the published ones: by their data,
    or, on the published data, by a smaller model or by overrides. Both are empty where there are none."""
    of_row = {str(row): str(data) for row, data in zip(frame["row"], frame["local_data"], strict=True) if data}
    if not of_row:
        return "", ""
    data = ", ".join(dict.fromkeys(map(table.label, of_row.values())))
    if all(name == table.dataset_of(row) for row, name in of_row.items()):
        is_paper = frame["scale"].iloc[0] == DECIDING_SCALE
        return data, f"not the published training{' (overrides)' if is_paper else ''}"
    return data, f"not {' or '.join(dict.fromkeys(table.label(table.dataset_of(row)) for row in of_row))}"
