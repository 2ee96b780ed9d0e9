"""Records on disk: atomic files, torn lines, and paths that follow from the config."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from repro.config.compose import compose
from repro.errors import UserError
from repro.files import read_object, replacing, write_json
from repro.runs import provenance
from repro.runs.record import Record, all_records, record_for
from repro.runs.status import Status
from repro.tracking.sinks import JsonlSink


@pytest.fixture
def record(tmp_path: Path) -> Record:
    config = compose(["method=svite", "seed=2"])
    made = record_for(tmp_path, config, "table1", "deit_small/svite-50")
    made.create(config, "table1", "deit_small/svite-50")
    return made


def test_path_and_round_trip(record: Record, tmp_path: Path) -> None:
    config = compose(["method=svite", "seed=2"])
    place = record.path.relative_to(tmp_path)
    assert place == Path(f"table1/deit_small/svite-50/local/seed2-{config.signature[:8]}")
    assert record.config().model_dump() == config.model_dump()  # without what is no part of a run
    assert record.config().signature == record.about()["signature"] == config.signature
    assert record.status() == Status()
    assert record.result() is None
    assert [found.path for found in all_records(tmp_path)] == [record.path]


def test_creating_again_changes_nothing(record: Record) -> None:
    record.set_status(record.status().moved("running", attempt=1))
    before = (record.path / "config.yaml").read_bytes()
    record.create(compose(["seed=9"]), "other", "row")
    assert (record.path / "config.yaml").read_bytes() == before
    assert record.status().state == "running"


def test_starts_from_is_stored_relative(tmp_path: Path) -> None:
    config = compose()
    origin = record_for(tmp_path / "runs", config, "table1", "deit_small/dense")
    made = record_for(tmp_path / "runs", config, "table1", "deit_small/omp-50")
    origin.create(config, "table1", "deit_small/dense")
    made.create(config, "table1", "deit_small/omp-50", origin.path)
    (tmp_path / "runs").rename(tmp_path / "moved")
    begun = Record(tmp_path / "moved" / made.path.relative_to(tmp_path / "runs")).starts_from()
    assert begun is not None
    assert begun.about()["row"] == "deit_small/dense"
    assert origin.path != begun.path


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        temporary.with_name("not the temporary file").touch()
    (tmp_path / "not the temporary file").unlink()
    assert read_object(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]
    assert read_object(tmp_path / "none.json") is None


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_atomic_files_have_the_usual_mode(umask: int, mode: int, tmp_path: Path) -> None:
    """safetensors gives its files mode 0600, whatever the umask: other users could not read an export."""
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "model.safetensors") as temporary:
            save_file({"weight": torch.zeros(2)}, temporary)
        with replacing(tmp_path / "as_always") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert found == {"model.safetensors": mode, "as_always": mode}


def test_a_torn_line_is_skipped(record: Record) -> None:
    record.metrics_file.write_bytes(b'{"kind": "train", "update": 1, "loss": 2.0}\n{"kind": "train", "update": 2, "lo')
    sink = JsonlSink(record.metrics_file)
    sink.write({"kind": "train", "update": 2, "loss": 1.5})
    sink.write({"kind": "train", "update": 1, "loss": 2.0})  # a resumed run repeats some lines
    sink.close(None)
    assert [(entry["update"], entry["loss"]) for entry in record.metrics()] == [(1, 2.0), (2, 1.5)]


def test_metrics_must_be_finite(record: Record) -> None:
    sink = JsonlSink(record.metrics_file)
    with pytest.raises(ValueError, match="not JSON compliant"):
        sink.write({"kind": "train", "update": 1, "loss": float("inf")})
    sink.close(None)


def test_not_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run record"):
        Record(tmp_path).about()


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot create the run's folder"):
        record_for(tmp_path / "file", compose(), "t", "r").create(compose(), "t", "r")


def test_provenance_has_versions_and_hardware_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    seen = provenance.collect("abc", "cpu")
    assert {
        "commit",
        "dirty_diff_sha256",
        "cpu",
        "cpu_count",
        "gpu",
        "versions",
        "os",
        "data_fingerprint",
    } <= seen.keys()
    assert seen["versions"]["torch"]
    assert seen["cpu"]
    assert "0123456789abcdef" not in str(seen)


def test_uncommitted_files_of_any_name_and_encoding_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    conf = tmp_path / "conf"
    conf.mkdir()
    (tmp_path / "repro").mkdir()
    (tmp_path / "paper_tables").mkdir()
    (conf / "a.yaml").write_text("a: 1\n")
    git("init")
    git("add", ".")
    git("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-m", "x")
    git("init", "conf/nested")
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    monkeypatch.setattr(provenance, "IS_INSTALLED", False)

    def diff() -> str | None:
        found: str | None = provenance.collect("abc", "cpu")["dirty_diff_sha256"]
        return found

    found = {diff()}
    (conf / "a.yaml").write_bytes("# \xfcbung\n".encode("latin-1"))
    found.add(diff())
    for text in ("new: 1\n", "new: 2\n"):
        (conf / "\xfcbung.yaml").write_text(text)
        found.add(diff())
    assert (None in found, len(found)) == (True, 4)


def test_two_processes_that_ask_for_a_lock_at_once_are_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path)
    other = record.lock
    other.acquire()
    assert record.is_locked
    monkeypatch.setattr("time.sleep", lambda _: other.release())  # the other one has its answer
    assert not record.is_locked
