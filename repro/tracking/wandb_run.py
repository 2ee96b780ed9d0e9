"""The W&B run of a record: its id, config, tags, files and artifacts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb

from repro.config import Config
from repro.config.costs import row_cost
from repro.runs.record import Record
from repro.tracking.metric_names import COST, COSTS
from repro.tracking.mirror_file import read_mirror
from repro.tracking.sweep import join_or_leave_sweep
from repro.tracking.wandb_project import WandbProject

CONFIG_TEXT = "resolved_config"  # the config as JSON text: the server returns 10.0 as 10
_PROVENANCE = ("commit", "dirty_diff_sha256", "time", "cpu", "gpu", "device", "python", "versions", "data_fingerprint")
_MAX_ID_LENGTH = 128


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for the server, in seconds.

    Attributes:
        init_s: for starting a run.
        finish_s: for finishing a run, and again for uploading its weights.
        confirm_s: for the server to report what it has received.
        stopped_s: total time for closing a run that was asked to stop; its next attempt sends what is missing.
        confirm_stopped_s: `confirm_s` for such a run.
    """

    init_s: float = 10.0
    finish_s: float = 30.0
    confirm_s: float = 10.0
    stopped_s: float = 5.0
    confirm_stopped_s: float = 2.0


def start_run(
    record: Record,
    config: Config,
    mode: Literal["online", "offline"],
    folder: Path,
    project: WandbProject,
    timeouts: Timeouts,
    *,
    is_training: bool,
) -> Any:
    """Start or resume the W&B run of a record. Errors of the client propagate.

    Args:
        folder: folder for the client's files.
        is_training: whether this is the training process. Only then does the client's information about machine and
            command describe the run.
    """
    about = record.about()
    provenance = record.provenance()
    wanted_id = run_id(record)
    in_sweep = join_or_leave_sweep(wanted_id)  # the agent sets id, entity and project; the client warns about others
    run = wandb.init(
        id=None if in_sweep else wanted_id,
        name=f"{about['row']} {config.scale.name} seed{config.seed}",
        entity=None if in_sweep else project.entity,
        project=None if in_sweep else project.name,
        # Not only the row: W&B would average runs of different scales or tables in one curve.
        group=f"{about['table']}/{about['row']}/{config.scale.name}",
        job_type=config.scale.name,
        tags=tags(about["table"], config),
        notes=config.tracker.notes,
        config=wandb_config(about, provenance),
        dir=str(folder),
        mode=mode,
        resume="allow",
        settings=client_settings(
            timeouts,
            host=provenance.get("host"),
            program=(provenance.get("argv") or [None])[0],
            git_commit=provenance.get("commit"),
            x_disable_stats=not is_training or config.scale.name != "paper",
            x_disable_meta=not is_training,
        ),
    )
    if run.id != wanted_id:
        run.finish(exit_code=1)
        raise RuntimeError(f"the client uses the run {run.id} in place of {wanted_id}: look at the WANDB_ variables")
    run.define_metric("update")
    run.define_metric("*", step_metric="update")
    cost = row_cost(config)
    run.summary.update({f"{COST}{name}": getattr(cost, name) for name in COSTS})
    _add_files(run, record)
    return run


def client_settings(timeouts: Timeouts, **settings: Any) -> wandb.Settings:
    """Return settings with which the client prints nothing and raises if it cannot finish in time."""
    return wandb.Settings(
        console="off",
        quiet=True,
        silent=True,
        init_timeout=timeouts.init_s,
        login_timeout=timeouts.init_s,
        finish_timeout=timeouts.finish_s,
        finish_timeout_raises=True,
        disable_git=True,  # provenance has the commit; the client would also store the URL of the git remote
        x_save_requirements=False,  # the record has those of the training machine
        **settings,
    )


def run_id(record: Record) -> str:
    """Return the id of a record's W&B run, which all attempts share: that of its mirror, else the default."""
    mirror = read_mirror(record.path)
    return mirror.run_id if mirror is not None and mirror.run_id else default_run_id(record.about())


def default_run_id(about: Mapping[str, Any]) -> str:
    """Return the id of a run that was not started by a sweep agent."""
    return f"{about['table']}-{about['row'].replace('/', '-')}-{about['signature'][:16]}"[:_MAX_ID_LENGTH]


def tags(table: str, config: Config) -> list[str]:
    """Return the tags for filtering runs in W&B."""
    method = config.method
    return [
        table,
        method.name,
        config.backbone.name,
        f"sparsity={method.sparsity:g}",
        f"data_sparsity={method.data_sparsity:g}",
        f"scale={config.scale.name}",
        *config.tracker.tags,
    ]


def wandb_config(about: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the W&B run: the resolved config, table and row, and the provenance."""
    known = {name: provenance[name] for name in _PROVENANCE if provenance.get(name) is not None}
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    return {**about, "provenance": known, CONFIG_TEXT: text}


def _add_files(run: Any, record: Record) -> None:
    """Add the resolved config, the provenance and the requirements as files."""
    folder = Path(run.dir)
    (folder / "record").mkdir(exist_ok=True)
    # config.yaml is renamed, because any folder under runs/ with a file of that name is a record. requirements.txt goes
    # where W&B expects it.
    for name, copy in (
        ("config.yaml", "record/resolved_config.yaml"),
        ("provenance.json", "record/provenance.json"),
        ("requirements.txt", "requirements.txt"),
    ):
        if (record.path / name).is_file():
            shutil.copyfile(record.path / name, folder / copy)
            run.save(str(folder / copy), base_path=run.dir, policy="now")


def add_weights(run: Any, record: Record, config: Config, timeout_s: float) -> None:
    """Upload the finished weights as an artifact if the config requests it (`tracker.upload_weights=true`).

    Errors of the client propagate, also if the server has not accepted the weights within `timeout_s` seconds, because
    finishing a run does not report a failed upload. Weights that the server already has are not sent again.
    """
    if not config.tracker.upload_weights or not record.weights_file.is_file():
        return
    about = record.about()
    artifact = wandb.Artifact(
        name=f"{run.id}-weights",
        type="model",
        description="finished weights without zeros; repro.training.weights_file.read_weights reads them",
        metadata={name: about[name] for name in ("table", "row", "signature")},
    )
    artifact.add_file(str(record.weights_file))
    logged = run.log_artifact(artifact)
    if not run.offline:
        logged.wait(timeout=timeout_s)
