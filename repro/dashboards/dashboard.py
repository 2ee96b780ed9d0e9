"""`repro wandb dashboard`: publish the W&B workspace and report of a table, or write them to a file for later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from pydantic import BaseModel, ConfigDict, Field

from repro.config.compose import compose
from repro.config.data_roots import NO_FOLDER
from repro.errors import UserError
from repro.files import write_json
from repro.report.build import view_of
from repro.report.folders import report_folder
from repro.report.tables import markdown_text
from repro.runs.validation import read_validated
from repro.tables.rows import Row, Table
from repro.tracking.client import client_errors
from repro.tracking.login import key_source, require_login
from repro.tracking.mirror_file import NOT_LOGGED_IN, one_line
from repro.tracking.wandb_project import WandbProject, choose_project

try:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces import Workspace
    from wandb_workspaces.workspaces.internal import View

    from repro.dashboards.report_page import build_report
    from repro.dashboards.report_run import figures_in, publish_summaries, publish_table, run_summaries, table_content
    from repro.dashboards.workspace import build_workspace
except ModuleNotFoundError as error:
    raise UserError(
        f"dashboards need {error.name}, which is not installed: pip install 'repro-sparse-vit[dashboards]'"
    ) from None

SCHEMA = 2
_NEXT_STEP = "remove it, and repro wandb dashboard TABLE writes it again, for new pages"


class Specification(BaseModel):
    """The file of a dashboard: its pages in the JSON format of the W&B server, and what is added to runs.

    Attributes:
        table, summaries: as returned by `table_content` and `run_summaries`.
        published: ids of the pages by `entity/project`, once they exist.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    schema_: int = Field(SCHEMA, alias="schema")
    workspace: dict[str, Any]
    report: dict[str, Any]
    table: dict[str, Any]
    summaries: dict[str, dict[str, Any]]
    published: dict[str, dict[str, str]] = {}


def make(
    table: Table,
    *,
    rows: Sequence[Row],
    overrides: Sequence[str],
    scale: str,
    seeds: Sequence[int],
    runs: Path,
    reports: Path,
    project: str | None,
    is_offline: bool,
) -> str:
    """Write the specification of a dashboard, publish it if the user is logged in, and return lines about the outcome.

    Raises `UserError` for no rows, an invalid override, or if the server rejects the dashboard.
    """
    if not rows:
        raise UserError(f"{table.name}: no row is selected (repro list {table.name} shows all)")
    target = choose_project(compose([NO_FOLDER, f"scale={scale}", *overrides]).tracker, project)
    seen = view_of(table, rows, scale, seeds, runs, overrides)
    folder = report_folder(reports, table.name, scale)
    figures = figures_in(folder)
    path = folder / f"{table.name}.wandb.json"
    entity = target.entity or ""
    earlier = _read(path)
    workspace = build_workspace(seen.results, entity, target.name)
    report = build_report(seen.results, seen.summary.lines, markdown_text(seen), list(figures), entity, target.name)
    content = Specification(
        **page_models(workspace, report),
        table=table_content(seen.results),
        summaries=run_summaries(seen.results),
        published=earlier.published if earlier is not None else {},
    )
    write_json(path, content.model_dump())
    lines = [str(path)]
    if not figures:
        lines.append(f"no figures in {folder}; repro report {table.name} --scale {scale} draws them")
    if is_offline or key_source() is None:
        reason = "--offline" if is_offline else NOT_LOGGED_IN
        lines.append(f"not published ({reason}); on a machine with network and key: repro wandb publish {path}")
    else:
        lines.append(publish_file(path, None))
    return "\n".join(lines)


def page_models(workspace: Any, report: Any) -> dict[str, Any]:
    """Return workspace and report in the JSON format of the W&B server."""
    return {
        "workspace": workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
        "report": report._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
    }


def publish_file(path: Path, project: str | None) -> str:
    """Publish a specification with the figures in its folder, and return the URLs, one per line.

    Pages that were created from the same file in the same project are updated. Raises `UserError` for a file that is
    not a specification, without a key, or if the server rejects it.
    """
    content = _read(path)
    if content is None:
        raise UserError(f"{path}: no such file; repro wandb dashboard TABLE writes one")
    try:
        workspace = Workspace._from_model(View.model_validate(content.workspace))
        report = Report._from_model(ReportViewspec.model_validate(content.report))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a dashboard ({one_line(error)}); repro wandb dashboard TABLE writes one"
        ) from None
    require_login()
    target = choose_project(None, project) if project else WandbProject(workspace.project, workspace.entity)
    target = WandbProject(target.name, target.entity or default_entity())
    where = f"{target.entity}/{target.name}"
    with client_errors("W&B did not accept the dashboard", f"; to publish it as a new one, remove {path} and repeat"):
        content.published[where] = _save(workspace, report, target, content.published.get(where, {}))
    write_json(path, content.model_dump())
    lines = [f"workspace {workspace.url}", f"report {report.url}"]
    with client_errors("W&B did not accept the table of the dashboard"):
        lines.append(f"table {publish_table(content.table, figures_in(path.parent), target)}")
        lines += publish_summaries(content.summaries)
    return "\n".join(lines)


def _save(workspace: Any, report: Any, target: WandbProject, ids: Mapping[str, str]) -> dict[str, str]:
    """Create both pages, or update the pages with these ids; return their ids."""
    for page in (workspace, report):
        page.entity, page.project = target.entity, target.name
    workspace._internal_id, workspace._internal_name = ids.get("workspace", ""), ids.get("workspace_name", "")
    report.id = ids.get("report", "")
    workspace.save()
    report.save()
    return {"workspace": workspace._internal_id, "workspace_name": workspace._internal_name, "report": report.id}


def _read(path: Path) -> Specification | None:
    return read_validated(path, Specification, _NEXT_STEP, SCHEMA)


def default_entity() -> str:
    """Return the default entity of the user. Raises `UserError` if there is none, or the server does not answer."""
    with client_errors("could not look up the user of the W&B API key"):
        entity = wandb.Api().default_entity
    if not entity:
        raise UserError("this W&B account has no default entity; name one: --project ENTITY/PROJECT")
    return str(entity)
