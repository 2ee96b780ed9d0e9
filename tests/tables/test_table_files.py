"""The files of a table: each mistake is one line with file, line and nearest name, and concerns its own table alone."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.cli.main import main
from repro.errors import UserError
from repro.locations import TABLES_DIR, groups
from repro.tables.file_models import RowRecord
from repro.tables.loader import load_sources, load_table, table_names
from repro.tables.rows import row_id

Copy = Callable[[str, str], Path]

LINES = {
    "deit_tiny/dense,top1_pct,72,,cited,nobody,": "source 'nobody' unknown",
    "deit_tiny/dense,top1_pct,72,,guessed,savit,": "kind: 'guessed' is not valid; nearest: digitised",
    "deit_tiny/dense,top2_pct,72,,cited,savit,": "metric 'top2_pct' unknown; nearest: top1_pct",
    "deit_tiny/dense,top1_pct,many,,cited,savit,": "value: 'many' is not a number",
    "deit_tiny/dense,top1_pct,nan,,cited,savit,": "value: should be a finite number, not 'nan'",
    "deit_tiny/dense,top1_pct,72,-1,cited,savit,": "uncertainty: should be greater than or equal to 0, not '-1'",
    "deit_tiny/dense,top1_pct,,,cited,savit,": "value: missing; add it",
    "deit_huge/dense,top1_pct,72,,cited,savit,": "row 'deit_huge/dense' unknown; nearest: ",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_published_value_is_named(line: str, copy_table: Copy) -> None:
    file = copy_table("table1", "mine") / "published.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load_table("mine")
    assert str(raised.value).startswith(f"{file} line {text.count(chr(10)) + 1}: {LINES[line]}")
    assert "\n" not in str(raised.value)


YAML = [
    ("tolerance: 0.005", "tolerence: 0.005", "metrics.macs_g.tolerence: unknown key; nearest: tolerance"),
    ("needs: device", "needs: devise", "needs: 'devise' is not valid; nearest: device"),
    ("tolerance: 0.0, bound: upper", "tolerance: 0.0, bound: uper", "bound: 'uper' is not valid; nearest: upper"),
    ("tolerance: 2.0", "tolerance: -2.0", "should be greater than or equal to 0, not '-2.0'"),
    ("tolerance: 2.0", "tolerance: two", "tolerance: 'two' is not a number"),
    ("title: ", "titel: ", "titel: unknown key; nearest: title"),
    ("dataset: imagenet", "dataset: imagnet", "dataset: no data 'imagnet'; nearest: imagenet"),
    ("dataset: imagenet", "# no data set", "dataset: missing; add it"),
    ("dataset: imagenet", "dataset: imagenet\ndataset: digits", "dataset: duplicate key; remove one"),
    ("seeds: {paper: 3,", "seeds: {papr: 3,", "no scale 'papr'; nearest: paper"),
    ("seeds: {paper: 3,", "seeds: {paper: 0,", "seeds.paper: should be greater than or equal to 1, not '0'"),
    ("figure: figure2", "figure: ../figure2", "figure: "),
    ("name: mine", "name: yours", "name: is 'yours', but the folder is mine/; make them the same"),
    ("default: [published, ablations]", "default: [publishd]", "no row set 'publishd'; nearest: published"),
    ("labels:", "overrides: {local: {'vit_bse/*': []}}\nlabels:", "no row matches 'vit_bse/*'"),
    ("labels:", "labels: [\n", "not YAML: "),
]


@pytest.mark.parametrize(("old", "new", "message"), YAML, ids=[new for _, new, _ in YAML])
def test_a_wrong_key_is_named(old: str, new: str, message: str, copy_table: Copy) -> None:
    file = copy_table("table2", "mine") / "table.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load_table("mine")
    assert re.match(re.escape(str(file)) + r"( line \d+)?: ", str(raised.value))
    assert "\n" not in str(raised.value)
    if "unknown key" in message:
        number = next(n for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1) if new in line)
        assert f"{file} line {number}: " in str(raised.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("ablations.csv", "resnet50/spartan-95-erk,", "resnet50/spartan-95,", "also in rows.csv: resnet50/spartan-95"),
        ("ablations.csv", "resnet50/spartan-95-erk,", "resnet50/spartan-95-uniform,", "line 5: duplicate row"),
        ("ablations.csv", "overrides,scales", "overides,scales", "unknown column 'overides'; nearest: overrides"),
        ("rows.csv", "resnet50/imp-80,", "resnet50/imp-80-../../x,", "row 'resnet50/imp-80-../../x': write backb"),
        ("rows.csv", "arch_sparsity_pct", "arch_sparsity", "no column arch_sparsity_pct (but 'arch_sparsity')"),
        ("rows.csv", "resnet50/imp-80,resnet50,imp", "resnet50/imp-80,resnet5,imp", "backbone: no backbone 'resnet5'"),
        ("rows.csv", "resnet50/imp-80,resnet50,imp", "resnet50/imp-80,resnet50,omp", "columns are those of "),
        ("rows.csv", "imp-80,resnet50,imp,80", "imp-80,resnet50,imp,85", "columns are those of resnet50/imp-85 (a "),
        ("rows.csv", "imp-80,resnet50,imp,80", "imp-80,resnet50,imp,180", "should be less than 100, not '180'"),
    ],
)
def test_a_wrong_row_is_named(file: str, old: str, new: str, message: str, copy_table: Copy) -> None:
    path = copy_table("table2", "mine") / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        load_table("mine")
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("file", ["mine/published.csv", "mine/rows.csv", "sources.csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_tables_saved_by_spreadsheets_are_read_or_refused(file: str, encoding: str, copy_table: Copy) -> None:
    tables = copy_table("table1", "mine").parent
    original = tables / file if "/" in file else TABLES_DIR / file
    with original.open(newline="", encoding="utf-8") as stream:
        header, *records = csv.reader(stream)
    records[0][-1] = "Gr\xf6\xdfe; a note"
    with (tables / file).open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=";").writerows([header, *records])
    if encoding == "latin-1":
        with pytest.raises(UserError, match=f"{file} line 2: not in UTF-8; save the file in UTF-8$"):
            load_table("mine")
    else:
        assert len(load_table("mine").rows) == len(load_table("table1").rows)


def test_own_tables_are_found_with_their_sources_and_backbones(copy_table: Copy) -> None:
    folder = copy_table("table2", "mine")
    (folder.parent / "sources.csv").write_text("source,citation,where\nlogbook,Ours,shelf 3\n", encoding="utf-8")
    conf = folder.parents[1] / "conf" / "backbone"
    conf.mkdir(parents=True)
    (conf / "resnet50_wide.yaml").write_text("defaults: [resnet50, _self_]\n", encoding="utf-8")
    (folder / "rows.csv").write_text(
        "row,backbone,method,arch_sparsity_pct,data_sparsity_pct\nresnet50_wide/dense,resnet50_wide,dense,0,0\n",
        encoding="utf-8",
    )
    (folder / "published.csv").write_text(
        "row,metric,value,kind,source\nresnet50_wide/dense,top1_pct,80,cited,logbook\n", encoding="utf-8"
    )
    (folder / "ablations.csv").unlink()
    text = (folder / "table.yaml").read_text(encoding="utf-8").replace("default: [published, ablations]", "")
    (folder / "table.yaml").write_text(text.replace("figure: figure2\n", ""), encoding="utf-8")
    table = load_table("mine")
    assert table.rows[0].published[0].value == 80
    assert table.figure == "figure_mine"
    assert load_sources()["logbook"].where == "shelf 3"


def test_a_broken_table_does_not_hide_the_others(copy_table: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy_table("table2", "broken") / "table.yaml"
    copy_table("table3", "whole")
    file.write_text(file.read_text(encoding="utf-8").replace("title:", "titel:"), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["list"])
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()] == ["table1", "table2", "table3", "whole"]
    assert output.err == f"repro: {file} line 8: titel: unknown key; nearest: title\n"
    assert ended.value.code == 2


def test_two_tables_of_one_name_are_refused(copy_table: Copy) -> None:
    copy_table("table2", "table2")
    with pytest.raises(UserError, match=r"table 'table2' is in .* and in .*; rename one"):
        load_table("table2")


@given(
    st.sampled_from(groups()["backbone"]),
    st.sampled_from(groups()["method"]),
    st.sampled_from([0, 5, 50, 97.5]),
    st.sampled_from([0, 5, 30]),
    st.sampled_from(["", "-mine", "-erk-2"]),
)
def test_the_id_that_columns_make_is_valid_and_of_no_other_columns(
    backbone: str, method: str, arch: float, data: float, suffix: str
) -> None:
    columns = {"backbone": backbone, "method": method, "arch_sparsity_pct": arch, "data_sparsity_pct": data}
    id_ = row_id(backbone, method, arch, data) + suffix
    assert RowRecord.model_validate({"row": id_, **columns}).row == id_
    for other in ({"arch_sparsity_pct": 60}, {"data_sparsity_pct": 10}, {"backbone": "deit_tiny"}, {"method": "omp"}):
        if {**columns, **other} != columns:
            with pytest.raises(ValueError, match="its columns are those of"):
                RowRecord.model_validate({"row": id_, **columns, **other})


@pytest.mark.parametrize(
    ("id_", "backbone", "method", "arch"),
    [
        ("timesformer/dense", "timesformer_base", "dense", 0),
        ("vit_base/spartan-90-block16", "vit_base", "spartan_block16", 90),
    ],
)
def test_an_id_may_shorten_a_name_that_no_other_has(id_: str, backbone: str, method: str, arch: float) -> None:
    columns = {"method": method, "arch_sparsity_pct": arch, "data_sparsity_pct": 0}
    assert RowRecord.model_validate({"row": id_, "backbone": backbone, **columns})
    with pytest.raises(ValueError, match="its columns are those of deit_base_384/"):
        RowRecord.model_validate({"row": "deit_base/dense", "backbone": "deit_base_384", **columns})


def test_a_folder_of_the_search_path_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRO_PATH", f"{tmp_path}:{tmp_path}/lba")
    with pytest.raises(UserError, match=f"^REPRO_PATH: {tmp_path}/lba: no such folder$"):
        table_names()
