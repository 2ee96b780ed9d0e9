"""`repro export` on the command line: by record and by row, and what it rejects."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import SHORT, VIT

from repro.cli.main import main
from repro.errors import UserError
from repro.inference.export import load_exported
from repro.inference.shrink import Sizes, block_sizes
from repro.launch.plan import finished_record, plan
from repro.tables.loader import load_table
from repro.training.attempt import execute

ROW = "deit_tiny/s2vite-30"
CHANGES = [text for text in (*VIT, *SHORT) if not text.startswith(("backbone=", "scale="))]


def test_a_row_and_its_record_export_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load_table("table1")
    root = tmp_path / "runs"
    (run,) = plan(table, table.select([ROW]), "smoke", [0], root, CHANGES)
    dense = ["--kernels", "dense"]  # otherwise, a measurement decides whether such a small model is shrunk
    command = ["export", ROW, *CHANGES, *dense, "--scale", "smoke", "--runs", str(root), "--out"]
    with pytest.raises(SystemExit) as ended:
        main([*command, str(tmp_path / "early")])
    assert ended.value.code == 2
    assert "not done" in capsys.readouterr().err
    run.create()
    assert execute(run.record.path, log=lambda _: None) == 0
    by_record = ["export", str(run.record.path), *dense, "--out"]
    for words in ([*command, str(tmp_path / "a")], [*by_record, str(tmp_path / "b")]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    assert "parameters" in capsys.readouterr().out
    assert block_sizes(load_exported(tmp_path / "a")) == Sizes((2, 2), (33, 33))
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert written[0] == written[1]
    with pytest.raises(SystemExit):
        main([*by_record, str(tmp_path / "best"), "--weights", "best"])
    best = block_sizes(load_exported(tmp_path / "best"))
    assert best.heads == (2, 2)
    assert all(25 < count <= 33 for count in best.neurons), "neurons grown in the last mask update are still zero"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run.record.path), "--format", "onnx", "--format", "torch", "--out", str(tmp_path / "g")])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "model.onnx: any number of images, layers dense" in output
    assert "model.pt2: any number of images, layers dense" in output
    assert {"model.onnx", "model.pt2", "model.safetensors"} <= {path.name for path in (tmp_path / "g").iterdir()}
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run.record.path), "--format", "onnx", "--kernels", "measured", "--out", "x"])
    assert ended.value.code == 2
    assert "a graph has no operator for sparse kernels" in capsys.readouterr().err
    assert finished_record(str(run.record.path), "local", 0, root, []).path == run.record.path
    with pytest.raises(UserError, match=r": a record has its own config; leave out recipe\.epochs=3$"):
        finished_record(str(run.record.path), "local", 0, root, ["recipe.epochs=3"])


def test_a_name_of_neither_a_record_nor_a_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "deit_tiny/s2vit-30", "--out", "x"])
    assert ended.value.code == 2
    assert "nearest: deit_tiny/s2vite-30" in capsys.readouterr().err
