"""The W&B report of a table: the table with its verdicts and claims, figures that W&B draws, links to the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import wandb_workspaces.reports.v2 as wr

from repro.rows import Row, Table
from repro.tracking.names import accuracy_group
from repro.tracking.workspace import against_macs, backbone_curves, filters, sparsity


def build_report(
    table: Table,
    rows: Sequence[Row],
    scale: str,
    frame: pd.DataFrame,
    markdown: str,
    signatures: Mapping[str, Sequence[str]],
    urls: Mapping[str, Sequence[str]],
    entity: str,
    project: str,
) -> Any:
    """The object tree of the report; nothing is sent before its `save`.

    Args:
        frame: the table's frame, for the verdicts in numbers.
        markdown: the table as `repro report` writes it, with its notes, sources and claims.
        signatures: by row, those of its seeds.
        urls: the W&B addresses of each row's runs; rows without one are named as not there yet.
    """
    group = accuracy_group(scale, is_published_data=True)
    backbones = list(dict.fromkeys(row.backbone for row in rows))

    def grid(panels: Sequence[Any], backbone: str | None = None) -> Any:
        name = table.label(backbone) if backbone else table.name
        chosen = [one for row in rows if backbone in (None, row.backbone) for one in signatures[row.id]]
        return _grid(name, filters(table, scale, chosen), panels)

    return wr.Report(
        project=project,
        entity=entity,
        title=f"{table.name} at {scale} scale: does it hold?"[:128],
        description=table.paper,
        width="fluid",
        blocks=[
            wr.TableOfContents(),
            wr.H1(text="Verdicts"),
            wr.UnorderedList(items=verdict_lines(frame, table)),
            wr.H1(text="Table"),
            wr.MarkdownBlock(text=markdown),
            wr.H1(text="Accuracy against MACs"),
            grid(against_macs(table, scale, group)),
            *(
                block
                for backbone in backbones
                for block in (
                    wr.H1(text=table.label(backbone)),
                    grid(backbone_curves(table, backbone, scale, group), backbone),
                )
            ),
            wr.H1(text="Sparsity and churn"),
            grid(sparsity()),
            wr.H1(text="Runs"),
            wr.MarkdownBlock(text=run_links(rows, urls)),
        ],
    )


def verdict_lines(frame: pd.DataFrame, table: Table) -> list[str]:
    """For each metric how many rows read what: `Params (M): 20 reproduced, 22 no published value`."""
    lines = []
    for metric in table.metrics.values():
        counts = Counter(str(verdict) for verdict in frame[f"{metric.name}_verdict"])
        lines.append(f"{metric.label}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return lines


def run_links(rows: Sequence[Row], urls: Mapping[str, Sequence[str]]) -> str:
    """A list of the rows with links to their runs."""
    lines = []
    for row in rows:
        links = ", ".join(f"[{url.rpartition('/')[2]}]({url})" for url in urls.get(row.id, ()))
        lines.append(f"- {row.id}: {links or f'not on W&B; `repro wandb push {row.table}`'}")
    return "\n".join(lines)


def _grid(name: str, filters_text: str, panels: Sequence[Any]) -> Any:
    """Panels two in a row over the runs that the filter leaves."""
    for place, panel in enumerate(panels):
        panel.layout = wr.Layout(x=12 * (place % 2), y=8 * (place // 2), w=12, h=8)
    # Without a project it is the report's own; with one, the library would ask the server for it here.
    runset = wr.Runset(name=name, filters=filters_text, groupby=["config.row"])
    return wr.PanelGrid(runsets=[runset], panels=list(panels))
