"""Weights & Biases as a mirror of the record: one W&B run per run, across all its attempts.

Nothing here may stop a training: the first error of the client ends the mirroring of this attempt with a warning, and
the record stays complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from repro.config import Config
from repro.errors import UserError
from repro.rows import Row, load_table
from repro.runs.record import Record

INIT_TIMEOUT_S = 20.0


class WandbMirror:
    """Writes entries to W&B: offline files beside the record, or the server when the user is logged in."""

    def __init__(self, record: Record, config: Config) -> None:
        self._run: Any = None
        about = record.about()
        self._row = published_row(about["table"], about["row"])
        self._is_paper_scale = config.scale.name == "paper"
        self._best_effort(lambda: self._open(record, config, about))

    def _open(self, record: Record, config: Config, about: Mapping[str, Any]) -> None:
        (record.path / "wandb").mkdir(exist_ok=True)
        wanted = config.tracker.mode
        try:
            if wanted == "online" or (wanted == "auto" and wandb.login(prompt=False)):
                self._init(record, config, about, "online")
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            print(
                f"warning: W&B cannot be reached ({reason}); writing offline, for `wandb sync` later", file=sys.stderr
            )
        if self._run is None:
            self._init(record, config, about, "offline")

    def _init(
        self, record: Record, config: Config, about: Mapping[str, Any], mode: Literal["online", "offline"]
    ) -> None:
        resolved = {key: value for key, value in about.items() if key != "signature"}
        self._run = wandb.init(
            id=run_id(about["signature"], about["table"], about["row"]),
            name=f"{about['row']} {config.scale.name} seed{config.seed}",
            project=config.tracker.project,
            group=about["row"],
            tags=tags(about["table"], config),
            config={**resolved, "signature": about["signature"]},
            dir=str(record.path),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(
                console="off",
                quiet=True,
                silent=True,
                init_timeout=INIT_TIMEOUT_S,
                x_disable_stats=config.scale.name != "paper",
            ),
        )
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Log one entry; its names get the entry's kind in front, so that W&B groups them."""
        values = {f"{entry['kind']}/{key}": value for key, value in entry.items() if key not in ("kind", "update")}
        self._best_effort(lambda: self._run.log({**values, "update": entry["update"]}))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Finish, with the measured and published values as the summary of a finished run."""
        if summary is not None:
            values = {self._summary_name(name): value for name, value in summary.items()}
            values |= self._against_published(summary)
            self._best_effort(lambda: self._run.summary.update(values))
        self._best_effort(lambda: self._run.finish(exit_code=0 if summary is not None else 1))

    def _summary_name(self, name: str) -> str:
        """An accuracy of another scale gets a name that nobody takes for ImageNet's."""
        is_accuracy = name.startswith(("top1_", "top5_", "loss_"))
        return f"local_{name}" if is_accuracy and not self._is_paper_scale else name

    def _against_published(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        if self._row is None:
            return {}
        values: dict[str, Any] = {}
        for metric in dict.fromkeys(value.metric for value in self._row.published):
            published = self._row.best_published(metric)
            assert published is not None
            values[f"published/{metric}"] = published.value
        accuracy = values.get("published/top1_pct")
        if accuracy is not None and self._is_paper_scale:
            values["delta/top1_pct"] = summary["top1_best_pct"] - accuracy
        return values

    def _best_effort(self, action: Callable[[], object]) -> None:
        """The one place where an error of the client ends: mirroring stops, training does not."""
        if self._run is None and getattr(self, "_gave_up", False):
            return
        try:
            action()
        except Exception as error:
            self._gave_up = True
            self._run = None
            print(
                f"warning: W&B mirror is behind ({type(error).__name__}: {error}); the record is complete",
                file=sys.stderr,
            )


def run_id(signature: str, table: str, row: str) -> str:
    """The id of the W&B run: a function of what the run is, so that every attempt writes to the same one."""
    return f"{table}-{row.replace('/', '-')}-{signature[:16]}"


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


def published_row(table: str, row: str) -> Row | None:
    """The row of a published table; None for a run started by hand."""
    try:
        return load_table(table).select([row])[0]
    except UserError:
        return None


def offline_runs(record: Path) -> list[Path]:
    """The offline segments that attempts have left, oldest first."""
    return sorted((record / "wandb").glob("offline-run-*"))
