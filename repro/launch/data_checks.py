"""Checks of the data before a launch: they fit the model, and finished runs were trained on the same data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from repro.config import GENERATED, Data
from repro.counting.geometry import Geometry
from repro.data.data_sets import check_settings
from repro.data.preflight import changes_since, check_fits, check_tables
from repro.errors import UserError
from repro.launch.plan import PlannedRun
from repro.locations import expand_home


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Check the data of runs and of the runs that they start from.

    The fingerprint of a finished run has to match the data in `data.root`, because its result is valid for no other
    data. The data of an unfinished run have to fit its config. On Slurm, this checks only what is known of the data
    set; the run checks the rest, because only the nodes may have the data. Raises one `UserError` with all errors.
    """
    errors: dict[str, None] = {}
    compare, read_lists = functools.cache(changes_since), functools.cache(check_tables)
    every = {each.record.path: each for run in runs for each in run.chain}
    for run in every.values():
        data = run.config.data
        is_generated = data.name in GENERATED
        try:
            if not run.is_done and (is_generated or run.config.launcher.runs_here):
                try:
                    check_fits(run.config)
                    read_lists(data)
                except UserError:  # for a run that has begun: what changed; settings that fit would be another run
                    if not is_generated:
                        _check_trained_on(run, compare)
                    raise
            elif not run.is_done:
                check_settings(data, run.config.recipe, run.config.model)
            elif not is_generated:
                _check_trained_on(run, compare)
        except UserError as error:
            errors[str(error)] = None
    if errors:
        raise UserError("\n".join(errors))


def _check_trained_on(run: PlannedRun, compare: Callable[[Data, Geometry, str], str | None]) -> None:
    fingerprint = run.record.trained_on()
    root = run.config.data.root
    if fingerprint is None or root is None:  # a record that was pulled from W&B has no provenance
        return
    trained_root = run.record.about().get("data", {}).get("root")
    if not Path(expand_home(root)).exists() and root == trained_root:  # unmounted or deleted after the training
        return
    changes = compare(run.config.data, run.config.model, fingerprint)
    if changes is not None:
        raise UserError(
            f"{run.record.path}: was trained on other data (fingerprint {fingerprint}, then in {trained_root}) than "
            f"those in data.root={root}{f' ({changes})' if changes else ''}; restore the data, set "
            "data.root to those of the training, or choose another runs folder"
        )
