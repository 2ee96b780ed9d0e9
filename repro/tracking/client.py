"""The W&B client as this project uses it: which run, with what about it. The only file that calls `wandb.init`."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil
import wandb

from repro.config import Config
from repro.errors import UserError
from repro.measure.cost import row_cost
from repro.runs.record import Record
from repro.tracking.mirror_file import one_line
from repro.tracking.place import Place

INIT_TIMEOUT_S = 10.0  # of a run at work
CONFIG_TEXT = "resolved_config"  # the config as text: numbers come back as they were (10.0, not 10)
_PROVENANCE = ("commit", "dirty_diff_sha256", "time", "cpu", "gpu", "device", "python", "versions", "data_fingerprint")
_RUN_ID_CHARACTERS = 128
_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}


@dataclass(frozen=True)
class Limits:
    """How long the client may wait for a server, in seconds: to begin a run, and to end it."""

    init_s: float
    finish_s: float


def limits_at_work(config: Config) -> Limits:
    """Those of a run that trains: W&B is never in the way."""
    return Limits(INIT_TIMEOUT_S, config.tracker.finish_timeout_s)


def start_run(
    record: Record,
    config: Config,
    mode: Literal["online", "offline"],
    folder: Path,
    place: Place,
    limits: Limits,
    *,
    is_at_work: bool,
) -> Any:
    """The W&B run of a record: new, or the same one again. Raises what the client raises.

    `folder` is where the client writes. `is_at_work` says whether this is the run's own process: what the client finds
    out about a machine and a command belongs to the run only there.
    """
    about = record.about()
    provenance = record.provenance()
    run = wandb.init(
        id=run_id(about["signature"], about["table"], about["row"]),
        name=f"{about['row']} {config.scale.name} seed{config.seed}",
        entity=place.entity,
        project=place.project,
        # Not the row alone: W&B would draw its runs of two scales, or of two tables, as one.
        group=f"{about['table']}/{about['row']}/{config.scale.name}",
        job_type=config.scale.name,
        tags=tags(about["table"], config),
        config=config_of(about, provenance),
        dir=str(folder),
        mode=mode,
        resume="allow",
        settings=wandb.Settings(
            console="off",
            quiet=True,
            silent=True,
            init_timeout=limits.init_s,
            login_timeout=limits.init_s,
            finish_timeout=limits.finish_s,
            finish_timeout_raises=True,
            host=provenance.get("host"),
            program=(provenance.get("argv") or [None])[0],
            # Provenance has the commit; the client's own look at git would run git again and note the remote.
            disable_git=True,
            git_commit=provenance.get("commit"),
            x_disable_stats=not is_at_work or config.scale.name != "paper",
            x_disable_meta=not is_at_work,
            x_save_requirements=False,  # the record has those of the machine that the run was on
        ),
    )
    run.define_metric("update")
    run.define_metric("*", step_metric="update")
    cost = row_cost(config)
    run.summary.update(
        {
            "cost/params_m": cost.params_m,
            "cost/macs_g": cost.macs_g,
            "cost/flops_saving_pct": cost.flops_saving_pct,
            "cost/flops_saving_alt_pct": cost.flops_saving_alt_pct,
        }
    )
    _add_files(run, record)
    return run


def config_of(about: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's config in W&B holds: the resolved config, where it stands in a table, and what code made it."""
    known = {name: provenance[name] for name in _PROVENANCE if provenance.get(name) is not None}
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    return {**about, "provenance": known, CONFIG_TEXT: text}


def _add_files(run: Any, record: Record) -> None:
    """The resolved config, the provenance and the versions of all requirements, as files."""
    folder = Path(run.dir)
    (folder / "record").mkdir(exist_ok=True)
    # Not config.yaml: this folder may lie below the runs' own, where a folder with that file is a record. The
    # requirements go where the client would put its own: W&B shows them there.
    for name, copy in (
        ("config.yaml", "record/resolved_config.yaml"),
        ("provenance.json", "record/provenance.json"),
        ("requirements.txt", "requirements.txt"),
    ):
        if (record.path / name).is_file():
            shutil.copyfile(record.path / name, folder / copy)
            run.save(str(folder / copy), base_path=run.dir, policy="now")


def add_weights(run: Any, record: Record, config: Config, timeout_s: float) -> None:
    """The finished weights as an artifact, where the run was asked to keep them (`tracker.upload_weights=true`).

    Raises what the client raises where the server has not taken them within `timeout_s`; of an upload that fails the
    end of the run says nothing. Weights that the server has already are not sent again.
    """
    if not config.tracker.upload_weights or not record.weights_file.is_file():
        return
    about = record.about()
    artifact = wandb.Artifact(
        name=f"{run.id}-weights",
        type="model",
        description="finished weights, zeros left out; repro.training.weights_file.read_weights reads them",
        metadata={name: about[name] for name in ("table", "row", "signature")},
    )
    artifact.add_file(str(record.weights_file))
    logged = run.log_artifact(artifact)
    if not run.offline:
        logged.wait(timeout=timeout_s)


def run_id(signature: str, table: str, row: str) -> str:
    """The id of the W&B run: a function of what the run is, so that every attempt writes to the same one."""
    return f"{table}-{row.replace('/', '-')}-{signature[:16]}"[:_RUN_ID_CHARACTERS]


def tags(table: str, config: Config) -> list[str]:
    """What the W&B table can be filtered by."""
    method = config.method
    return [
        table,
        method.name,
        config.backbone.name,
        f"sparsity={method.sparsity:g}",
        f"data_sparsity={method.data_sparsity:g}",
        f"scale={config.scale.name}",
    ]


def stop_client() -> None:
    """End the client's service process: at the exit of this one the client would wait for it, as long as it takes."""
    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.kill()
    reset_client()


def reset_client() -> None:
    """Make the client forget every run: it keeps the id of one that it could not start, or end."""
    # It complains of a service process that is gone, or exits with that process's code, which is not ours to exit with.
    with contextlib.suppress(ConnectionError, SystemExit):
        wandb.teardown()


def wanted_mode(config: Config) -> str:
    """`tracker.mode`; where that is `auto`, what WANDB_MODE says, if it says anything that the client knows."""
    mode = config.tracker.mode
    return mode if mode != "auto" else _MODES.get(os.environ.get("WANDB_MODE", ""), mode)


def is_logged_in() -> bool:
    """Whether there is a key for the client's server, in the environment or in netrc; asks nobody.

    `wandb.login` would ask the server whose key it is, and wait for one that does not answer.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(wandb.setup().settings.base_url).hostname
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if host and netrc.netrc(path).authenticators(host):
                return True
        except FileNotFoundError:
            continue
        except netrc.NetrcParseError as error:  # its message quotes the file, where the key is
            raise UserError(f"{path}: line {error.lineno} is not understood; it may hold W&B's key: mend it") from None
        except (OSError, UnicodeError) as error:
            raise UserError(f"{path}: cannot be read ({type(error).__name__}); it may hold W&B's key") from None
    return False


@contextlib.contextmanager
def client_errors(what: str, advice: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is one `UserError` line: what, the error, what to do.

    Of any kind: the client's errors have no common parent, and an answer that it cannot read is pydantic's.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it exits with its service's code where that has died
        raise UserError(f"{what} ({one_line(error)}){advice}") from None


def require_login() -> None:
    """Raise `UserError`, with what to do, where there is no key."""
    if not is_logged_in():
        raise UserError("not logged in to W&B: run `wandb login`, or set WANDB_API_KEY")
