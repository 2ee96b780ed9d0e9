"""Runs read from W&B's offline files: the same as from a server, and converted back to records."""

from __future__ import annotations

from pathlib import Path

import pytest
from mirrored import eval_entry, new_record, result_of_run, train_entry, write_run

from repro.errors import UserError
from repro.runs.record import Record
from repro.tracking.offline_runs import accuracies, offline_runs_below
from repro.tracking.pull import pull
from repro.tracking.sinks import open_sinks


def test_the_segments_of_a_run_are_one_and_become_its_record(tmp_path: Path) -> None:
    runs = tmp_path / "runs with space"
    record, config = new_record(runs)
    # A first attempt of four updates that was stopped, and a second one that resumes with the fourth.
    sinks = open_sinks(record, config, is_first=True)
    for update in range(1, 5):
        sinks.write(train_entry(update))
    sinks.write(eval_entry(4))
    sinks.close(None)
    write_run(record, config, range(4, 9))
    other, its_config = new_record(runs, "seed=1")
    write_run(other, its_config, range(1, 3))
    found = {run.remote.config["seed"]: run for run in offline_runs_below(runs)}
    assert sorted(found) == [0, 1]
    assert [line["update"] for line in found[0].history] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert list(accuracies(found[0], "smoke")) == [(1.0, 77.0), (2.0, 77.0)]
    assert list(accuracies(found[0], "eval")) == []
    pulled = pull([run.remote for run in found.values()], tmp_path / "pulled")
    assert len(pulled.written) == 2
    for made in (record, other):
        again = Record(tmp_path / "pulled" / made.path.relative_to(runs))
        assert again.result() == made.result()
        assert again.config() == made.config()
    assert found[0].remote.summary["result/smoke_top1_best_pct"] == result_of_run(config)["top1_best_pct"]
    assert [run.remote.config["seed"] for run in offline_runs_below(runs, [f"*-{its_config.signature[:16]}"])] == [1]


def test_no_run_and_no_file_of_the_client_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no offline W&B run below it"):
        offline_runs_below(tmp_path)
    (tmp_path / "offline-run-1").mkdir()
    (tmp_path / "offline-run-1" / "run-x.wandb").write_bytes(b"no log of the client")
    with pytest.raises(UserError, match=r"run-x\.wandb: W&B's client cannot read it"):
        offline_runs_below(tmp_path)
