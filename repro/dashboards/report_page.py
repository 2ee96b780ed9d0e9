"""The W&B report of a table: the table with its verdicts and claims, charts, and links to the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from repro.dashboards.report_run import TABLE_KEY, report_name
from repro.dashboards.workspace import run_filter, sections
from repro.report.cells import Results
from repro.tracking.mirror_file import read_mirror


def build_report(
    results: Results, summary: Sequence[str], markdown: str, figures: Sequence[str], entity: str, project: str
) -> Any:
    """Build the object tree of the report; nothing is sent before its `save` is called.

    Args:
        summary: sentences that state how many published values hold.
        markdown: the Markdown table of `repro report`, with notes, sources and claims.
        figures: keys of the figures in the report's W&B run.
    """
    table = results.table
    return wr.Report(
        project=project,
        entity=entity,
        title=f"{table.name} at {results.scale} scale: is it reproduced?"[:128],
        description=table.paper,
        width="fluid",
        blocks=[
            wr.TableOfContents(),
            wr.H1(text="Summary"),
            wr.UnorderedList(items=list(summary)),
            wr.H1(text="Table"),
            wr.MarkdownBlock(text=markdown),
            wr.H1(text="Table and figures"),
            _report_run_grid(results, figures),
            *(
                block
                for name, panels, backbone in sections(results)
                for block in (wr.H1(text=name), _grid(results, panels, backbone))
            ),
            wr.H1(text="Runs"),
            wr.MarkdownBlock(text=run_links(results)),
        ],
    )


def run_links(results: Results) -> str:
    """Return a Markdown list of the rows with links to their runs."""
    lines = []
    for row in results.rows:
        mirrors = [read_mirror(run.record.path) for run in row.evidence.runs.values()]
        urls = [mirror.url for mirror in mirrors if mirror is not None and mirror.url]
        links = ", ".join(f"[{url.rpartition('/')[2]}]({url})" for url in urls)
        lines.append(f"- {row.row.id}: {links or f'not on W&B; `repro wandb push {row.row.table}`'}")
    return "\n".join(lines)


def _report_run_grid(results: Results, figures: Sequence[str]) -> Any:
    """Show the sortable table and the figures, which are logged in the report's run (`repro.dashboards.report_run`)."""
    panels = [
        wr.WeavePanelSummaryTable(table_name=TABLE_KEY, layout=wr.Layout(x=0, y=0, w=24, h=12)),
        *(
            wr.MediaBrowser(
                media_keys=[key], layout=wr.Layout(x=12 * (number % 2), y=12 + 10 * (number // 2), w=12, h=10)
            )
            for number, key in enumerate(figures)
        ),
    ]
    name = report_name(results.table.name, results.scale)
    runset = wr.Runset(name=f"report {name}", filters=f"Config('report') = '{name}'")
    return wr.PanelGrid(runsets=[runset], panels=panels)


def _grid(results: Results, panels: Sequence[Any], backbone: str | None = None) -> Any:
    """Arrange panels in two columns, for the runs of one backbone or all runs."""
    for number, panel in enumerate(panels):
        panel.layout = wr.Layout(x=12 * (number % 2), y=8 * (number // 2), w=12, h=8)
    name = results.table.label(backbone) if backbone else results.table.name
    # The project defaults to that of the report; given one, the library would query the server for it here.
    runset = wr.Runset(name=name, filters=run_filter(results, backbone), groupby=["config.row"])
    return wr.PanelGrid(runsets=[runset], panels=list(panels))
