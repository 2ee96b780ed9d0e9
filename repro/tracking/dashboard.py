"""`repro wandb dashboard`: a table's workspace and report, published, or written to a file to be published later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import wandb

from repro.composition import compose
from repro.errors import UserError
from repro.report.claims import judge_claims, rows_beside
from repro.report.collect import gather
from repro.report.tables import markdown_text
from repro.report.view import view
from repro.rows import Row, Table
from repro.runs.files import write_json
from repro.runs.record import Record, record_for
from repro.signature import signatures
from repro.tracking.client import client_errors, is_logged_in, require_login
from repro.tracking.mirror_file import one_line, read_mirror
from repro.tracking.place import Place, place_of

try:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    from repro.tracking.report_page import build_report
    from repro.tracking.workspace import build_workspace
except ModuleNotFoundError as error:
    raise UserError(
        f"dashboards need {error.name}, which is not installed: pip install 'repro-sparse-vit[dashboards]'"
    ) from None

SCHEMA = 1


def make(
    table: Table,
    *,
    rows: Sequence[str],
    overrides: Sequence[str],
    scale: str,
    seeds: Sequence[int],
    runs: Path,
    reports: Path,
    project: str | None,
    is_offline: bool,
) -> str:
    """Write the specification, publish it where the client is logged in, and say what was done, in lines.

    Raises `UserError` for a wrong row or override, and for a server that refuses.
    """
    chosen = table.select(rows, scale)
    place = place_of(compose(["data.root=unused", f"scale={scale}", *overrides]).tracker.project, project)
    entity, name = place.entity or "", place.project
    beside = rows_beside(table, chosen, scale)
    whole, _ = gather(table, chosen, scale, seeds, runs, overrides, beside=beside)
    frame = whole.iloc[: len(chosen)]
    markdown = markdown_text(view(frame, table, overrides, judge_claims(whole, table)))
    found = _runs(table, chosen, scale, seeds, overrides, runs)
    is_online = not is_offline and is_logged_in()
    if is_online:
        entity = entity or _default_entity()
    by_row = {row: list(records) for row, records in found.items()}
    urls = {row: known for row, records in found.items() if (known := _urls(records.values()))}
    workspace = build_workspace(table, chosen, scale, by_row, entity, name)
    report = build_report(table, chosen, scale, frame, markdown, by_row, urls, entity, name)
    path = reports / table.name / f"{table.name}.wandb.json"
    write_json(path, specification(workspace, report))
    if is_online:
        return f"{path}\n{publish(workspace, report)}"
    why = "asked not to" if is_offline else "not logged in to W&B"
    return f"{path}\nnot published ({why}); where there is a network and a key: repro wandb publish {path}"


def specification(workspace: Any, report: Any) -> dict[str, Any]:
    """Workspace and report as the JSON that W&B's server takes."""
    return {
        "schema": SCHEMA,
        "workspace": workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
        "report": report._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
    }


def publish_file(path: Path, project: str | None) -> str:
    """Publish a specification that was written earlier, perhaps elsewhere.

    Raises `UserError` for a file that is none, without a key, and for a server that refuses.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        workspace = Workspace._from_model(View.model_validate(read["workspace"]))
        report = Report._from_model(ReportViewspec.model_validate(read["report"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a specification ({one_line(error)}); repro wandb dashboard TABLE writes one"
        ) from None
    require_login()
    place = place_of(None, project) if project else Place(workspace.project, workspace.entity)
    for page in (workspace, report):
        page.entity, page.project = place.entity or _default_entity(), place.project
    return publish(workspace, report)


def publish(workspace: Any, report: Any) -> str:
    """Save both on the server and say where they are. Raises `UserError` where it refuses."""
    with client_errors("W&B did not take the dashboard"):
        workspace.save()
        report.save()
    return f"workspace {workspace.url}\nreport {report.url}"


def _default_entity() -> str:
    with client_errors("W&B does not say whose key it is"):
        return str(wandb.Api().default_entity)


def _runs(
    table: Table, rows: Sequence[Row], scale: str, seeds: Sequence[int], overrides: Sequence[str], root: Path
) -> dict[str, dict[str, Record]]:
    """By row, then by signature, the records that the table is made of."""
    found: dict[str, dict[str, Record]] = {}
    for row in rows:
        first = compose(["data.root=unused", *row.overrides_at(scale), *overrides])
        found[row.id] = {
            signature: record_for(root, first.model_copy(update={"seed": seed}), table.name, row.run_id, signature)
            for seed, signature in signatures(first, seeds).items()
        }
    return found


def _urls(records: Iterable[Record]) -> list[str]:
    """The addresses that their mirrors know."""
    mirrors = [read_mirror(record.path) for record in records]
    return [mirror.url for mirror in mirrors if mirror is not None and mirror.url]
