"""Pull from W&B to records: what is converted, and what is rejected before anything is written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import random_input
from hypothesis import given
from hypothesis import strategies as st
from loopback import serving
from mirrored import finished, new_record, repro, result_of_run, use, write_run

from repro.config.compose import compose
from repro.errors import UserError
from repro.files import write_json
from repro.runs.record import Record, all_records, record_for
from repro.runs.status import Status
from repro.tables.loader import load_table
from repro.tracking.metric_names import names_of
from repro.tracking.pull import RemoteRun, pull, remote_runs
from repro.tracking.wandb_run import CONFIG_TEXT
from repro.training.attempt import EXIT_FAILED, execute


def remote(record: Record, **result: Any) -> RemoteRun:
    """Return a record's run as a server would, without a server."""
    about, config = record.about(), record.config()
    summary = names_of("table1", about["row"], config).summary(result_of_run(config, row=about["row"], **result))
    text = {"signature": about["signature"], CONFIG_TEXT: json.dumps(about)}
    return RemoteRun("id", "http://w/e/p/runs/id", "e/p", text, summary)


def test_from_one_machine_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    record = finished(here)
    unfinished, config = new_record(here, "tracker=none", "seed=1")
    write_run(unfinished, config, range(1, 3), finished=False)
    with serving() as server:
        use(monkeypatch, server)
        assert repro("push", str(here)) == 0
        assert repro("pull", "me/repro-sparse-vit", "--runs", str(there)) == 0
        assert "1 pulled, 0 already here, 1 skipped" in capsys.readouterr().out
        assert repro("pull", "me/repro-sparse-vit", "table1/deit_small", "--runs", str(there)) == 0
        assert "0 pulled, 1 already here" in capsys.readouterr().out
        assert remote_runs("me/repro-sparse-vit")[0].url.startswith(server.url)
    pulled = Record(there / record.path.relative_to(here))
    assert pulled.result() == record.result()
    assert pulled.about() == record.about()
    assert pulled.config().signature == pulled.about()["signature"]
    assert pulled.status().state == "done"
    assert pulled.provenance()["commit"].startswith("c0ffee")
    assert pulled.provenance()["pulled_from"].startswith("http://127.0.0.1")


def test_what_a_pull_refuses(tmp_path: Path) -> None:
    record = finished(tmp_path / "theirs")
    other = finished(tmp_path / "theirs", "recipe.lr=0.001")
    mine = tmp_path / "mine"
    edited = remote(record)
    text = json.loads(edited.config[CONFIG_TEXT])
    text["recipe"]["epochs"] = 3
    edited = dataclasses.replace(edited, config={**edited.config, CONFIG_TEXT: json.dumps(text)})
    for runs, message in (
        ([edited], "conflicting signatures: it claims"),
        ([remote(record, signature="0" * 64)], "conflicting signatures: it claims 00000000"),
        ([remote(record), remote(record, wall_s=3.0)], "2 runs with the signature"),
    ):
        with pytest.raises(UserError, match=message):
            pull(runs, mine)
        assert not mine.exists()
    assert len(pull([remote(record), remote(other)], mine).written) == 2
    with pytest.raises(UserError, match=r"duplicate: this run was trained twice.*wall_s 1.5 here, 9.0 there"):
        pull([remote(record, wall_s=9.0)], mine)


def test_whatever_a_server_holds_is_pulled_or_refused(tmp_path: Path) -> None:
    """A project on a server may hold runs of other code and other versions."""
    whole = remote(finished(tmp_path / "theirs"))
    text = whole.config[CONFIG_TEXT].encode()
    copies = itertools.count()

    @given(random_input.edited(text), st.dictionaries(st.sampled_from(sorted(whole.summary)), random_input.VALUES))
    @random_input.random_input
    def check(about: bytes, summary: dict[str, str]) -> None:
        config = {**whole.config, CONFIG_TEXT: about.decode(errors="replace")}
        run = dataclasses.replace(whole, config=config, summary={**whole.summary, **summary})
        refused = ""
        try:
            pull([run], tmp_path / str(next(copies)))
        except UserError as error:
            refused = str(error)
        assert all(line.startswith("  ") for line in refused.splitlines()[1:])  # a line for each problem

    check()


def test_a_pull_does_not_touch_a_run_that_is_at_work_here(tmp_path: Path) -> None:
    theirs = finished(tmp_path / "theirs")
    mine, _ = new_record(tmp_path / "mine", "tracker=none")
    write_json(mine.path / "checkpoint.json", {})
    with pytest.raises(UserError, match="exists and is requeued"):
        pull([remote(theirs)], tmp_path / "mine")
    assert mine.result() is None


def edited(record: Record, config: dict[str, Any] | None = None, **summary: Any) -> RemoteRun:
    """Return a run that was edited on the server: values of its config text and summary (None: removed)."""
    run = remote(record)
    text = {**json.loads(run.config[CONFIG_TEXT]), **(config or {})}
    changed = {**run.summary, **{name.replace("__", "/"): value for name, value in summary.items()}}
    kept = {name: value for name, value in changed.items() if value is not None}
    return dataclasses.replace(run, config={**run.config, CONFIG_TEXT: json.dumps(text)}, summary=kept)


OTHER_ROW = "deit_small/svite_plus-10-50"


@pytest.mark.parametrize(
    ("config", "summary", "message"),
    [
        ({"row": "../../outside"}, {}, r"table1 has no row '../../outside'.*valid|nearest"),
        ({"row": "/outside"}, {}, "table1 has no row '/outside'"),
        ({"row": ["a"]}, {}, "table1 has no row"),
        ({"table": "../table1"}, {}, "no table '../table1'; nearest: table1"),
        ({"table": 3}, {}, "no table '3'; valid: .*table1"),
        ({"row": "deit_small/svite_plus-5-51"}, {}, "no row 'deit_small/svite_plus-5-51'; nearest: .*svite_plus-5-50"),
        ({"row": OTHER_ROW}, {"result__row": OTHER_ROW}, "its method.data_sparsity is 0.05, the row's is 0.1"),
        ({"row": "deit_tiny/dense"}, {}, "its backbone.name is 'deit_small', the row's is 'deit_tiny'"),
        ({"signature": ["a"]}, {}, "conflicting signatures"),
        ({}, {"result__schema": 2}, "its result has schema 2, this code reads 1"),
        ({}, {"result__row": OTHER_ROW}, "its result has row"),
        ({}, {"result__scale": "paper"}, "its result has scale 'paper', its config 'smoke'"),
        ({}, {"result__seed": 1}, "its result has seed 1, its config 0"),
        ({}, {"result__dataset": "imagenet"}, "its result has dataset 'imagenet', its config 'digits'"),
        ({}, {"result__smoke_top1_best_pct": 99.9}, "its result does not match its digest"),
        ({}, {"result__smoke_top5_best_pct": 99.9}, "its result does not match its digest"),
        ({}, {"result__smoke_top1_best_pct": None}, "its result has no top1_best_pct; push it again"),
        ({}, {"result__updates": None}, "its result has no updates"),
        ({}, {"result__updates": "8"}, "its result has no updates"),
        ({}, {"record__result_sha256": None}, "its summary has no record/result_sha256"),
    ],
)
def test_a_run_that_is_not_what_it_says_is_refused_and_nothing_is_written(
    config: dict[str, Any], summary: dict[str, Any], message: str, tmp_path: Path
) -> None:
    whole, record = finished(tmp_path / "theirs", "seed=1"), finished(tmp_path / "theirs")
    folder = tmp_path / "a" / "b" / "mine"
    folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message) as refused:
        pull([remote(whole), edited(record, config, **summary)], folder)
    assert len(str(refused.value).splitlines()) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert pull([remote(whole), remote(record)], folder).skipped == 0


def test_a_row_is_not_taken_for_another_that_differs_in_its_own_settings(tmp_path: Path) -> None:
    # Two rows of the same method and sparsity differ only in their settings.
    row, other = load_table("table1").select(["deit_small/s2vite-40", "deit_small/s2vite-40-as_released"])
    config = compose([*row.overrides, "scale=smoke"])
    record = record_for(tmp_path, config, "table1", row.id)
    record.create(config, "table1", row.id)
    with pytest.raises(UserError, match=r"its method\.weights\.growth is"):
        pull([edited(record, {"row": other.id}, result__row=other.id)], tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    assert len(pull([remote(record)], tmp_path / "mine").written) == 1


def test_a_run_with_an_override_is_pulled_next_to_the_rows_own(tmp_path: Path) -> None:
    """Even if another row has this config: a report finds records by their signature."""
    (row,) = load_table("table1").select(["deit_small/s2vite-40"])
    runs = []
    for overrides in ([], ["method.weights.growth=as_released"]):
        config = compose([*row.overrides, "scale=smoke", *overrides])
        record = record_for(tmp_path / "theirs", config, "table1", row.id)
        record.create(config, "table1", row.id)
        runs.append(remote(record))
    written = pull(runs, tmp_path / "mine").written
    assert len(written) == len({path.parent for path in written}) + 1 == 2


def test_single_runs_are_skipped_and_prefixes_name_tables(tmp_path: Path) -> None:
    record = finished(tmp_path / "theirs")
    by_hand = edited(record, {"table": "by_hand"}, result__table="by_hand")
    assert pull([by_hand, remote(record)], tmp_path / "mine").skipped == 1
    with pytest.raises(UserError, match=r"by_hand: no table 'by_hand'; valid: .*table1"):
        pull([by_hand], tmp_path / "mine", ["by_hand"])


def test_a_pull_without_disk_space_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, mine = finished(tmp_path / "theirs"), tmp_path / "mine"
    run = remote(record)

    def disk_is_full(self: Record, status: Status) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "set_status", disk_is_full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        pull([run], mine)
    assert not [path for path in mine.rglob("*") if path.is_file()]


def test_a_pull_after_one_that_was_killed(tmp_path: Path) -> None:
    record, mine = finished(tmp_path / "theirs"), tmp_path / "mine"
    final = mine / record.path.relative_to(tmp_path / "theirs")
    unfinished = final.with_name(f".{final.name}.pull")
    shutil.copytree(record.path, unfinished)
    assert not list(all_records(mine))
    assert pull([remote(record)], mine).written == (final,)
    assert [found.path for found in all_records(mine)] == [final]
    assert Record(final).result() == record.result()
    assert not unfinished.exists()


def test_a_pulled_run_says_that_its_weights_are_elsewhere(tmp_path: Path) -> None:
    dense = load_table("table1").select(["deit_small/dense"])[0]
    config = compose([*dense.overrides, "scale=smoke"])
    theirs = record_for(tmp_path / "theirs", config, "table1", dense.id)
    theirs.create(config, "table1", dense.id)
    (path,) = pull([remote(theirs)], tmp_path / "mine").written
    sparse = compose(["backbone=deit_small", "method=omp", "method.sparsity=0.5", "scale=smoke", "run.device=cpu"])
    begun = record_for(tmp_path / "mine", sparse, "by_hand", "omp")
    begun.create(sparse, "by_hand", "omp", starts_from=path)
    assert execute(begun.path, log=lambda _: None) == EXIT_FAILED
    reason = begun.status().reason or ""
    assert reason == (
        f"starts from the weights of {path}, which was pulled without its weights (http://w/e/p/runs/id); copy its "
        "checkpoint/ from the machine that trained it, or remove that folder and launch that row"
    )
    write_json(path / "provenance.json", {})  # trained here, checkpoints removed
    assert execute(begun.path, log=lambda _: None) == EXIT_FAILED
    assert "after update 4, which were not saved; remove that folder and" in (begun.status().reason or "")
