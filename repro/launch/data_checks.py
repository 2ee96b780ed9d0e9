"""Checks of the data of runs before anything starts: they fit the model, and finished runs were trained on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from repro.config import Data
from repro.counting.geometry import Geometry
from repro.data.layouts import GENERATED
from repro.data.preflight import changes_since, check_fits
from repro.errors import UserError
from repro.launch.plan import PlannedRun


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Check the data of runs, and of those that they start from. Raises one `UserError` with all that is wrong.

    A result belongs to the data that it was trained on, wherever they are now: a finished run's fingerprint is compared
    with the data in `data.root`. The data of an unfinished run have to fit its model. (On Slurm that is left to the
    run: the data may be on the nodes only.)
    """
    errors: dict[str, None] = {}
    compare = functools.cache(changes_since)
    with_origins = [each for run in runs for each in [*reversed(run.origins), run]]
    for run in {each.record.path: each for each in with_origins}.values():
        data = run.config.data
        if data.name in GENERATED:
            continue
        try:
            if run.is_done:
                _check_trained_on(run, compare)
            elif run.config.launcher.runs_here:
                check_fits(run.config)
        except UserError as error:
            errors[str(error)] = None
    if errors:
        raise UserError("\n".join(errors))


def _check_trained_on(run: PlannedRun, compare: Callable[[Data, Geometry, str], str | None]) -> None:
    fingerprint = run.record.trained_on()
    root, trained_root = run.config.data.root, run.record.about().get("data", {}).get("root")
    if fingerprint is None or root is None:  # pulled from W&B, without provenance
        return
    if not Path(root).expanduser().exists() and root == trained_root:  # unmounted, or removed after the training
        return
    changes = compare(run.config.data, run.config.model, fingerprint)
    if changes is not None:
        raise UserError(
            f"{run.record.path}: was trained on other data (fingerprint {fingerprint}, then in {trained_root}) than "
            f"those in data.root={root}{f' ({changes})' if changes else ''}; set data.root to those data, or choose "
            "another folder of runs"
        )
