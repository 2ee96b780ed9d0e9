"""Records made before a class moved: they are found under the same signature, read, and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from repro.class_names import FIRST_NAMES, load_class
from repro.config.compose import compose
from repro.config.costs import method_cost
from repro.config.signature import signature
from repro.errors import UserError
from repro.methods.base import MethodPart
from repro.runs.record import Record
from repro.tables.loader import load_table

# Signatures at commit 14426dd, before the modules of methods moved. A change here makes people's records unfindable.
# (The local scale of table 1 was chosen anew later.)
SIGNATURES = [
    ("table1", "deit_tiny/dense", "paper", "763e9d77c068bb87"),
    ("table1", "deit_base/svite-40", "paper", "845f78473db3b925"),
    ("table1", "deit_small/s2vite_plus-10-40", "paper", "0fb64e3e1b46f9c5"),
    ("table1", "deit_small/svite_plus-5-50", "paper", "275d1afccbcf3601"),
    ("table1", "deit_tiny/omp-30", "paper", "4543bbaf1871d057"),
    ("table1", "deit_tiny/gmp-30", "paper", "c0a167b23408a4f2"),
    ("table1", "deit_tiny/tp-30", "paper", "02b57037bbea9364"),
    ("table1", "deit_small/ssp-40", "paper", "62081b18058310f9"),
    ("table2", "resnet50/imp-95", "paper", "f00ed70497d24786"),
    ("table2", "vit_base/spartan-90-block32", "paper", "5227c909085c973e"),
    ("table2", "vit_base/top_kast-90", "paper", "4bea75322f22e41a"),
    ("table3", "timesformer/ia_red2", "paper", "ee792492a47efbc5"),
    ("table3", "deit_small/linformer", "paper", "fd2d9b7e95c0a88a"),
    ("table3", "deit_small/random_dropping", "paper", "955186cd3e59d312"),
    ("table3", "deit_small/attention_dropping", "paper", "0e8d223dbfe189df"),
    ("table1", "deit_small/s2vite-40", "local", "82f3374e955793be"),
    ("table2", "resnet50/spartan-90", "local", "5ed03819054f2c2d"),
    ("table3", "deit_small/ia_red2", "local", "54f00a5766ca091f"),
]


@pytest.mark.parametrize(("table", "row", "scale", "expected"), SIGNATURES)
def test_a_row_has_the_signature_that_its_records_have(table: str, row: str, scale: str, expected: str) -> None:
    overrides = next(each for each in load_table(table).every_row if each.id == row).overrides_at(scale)
    folder = ["data.root=/data"] if scale == "paper" else []
    assert compose([*overrides, *folder]).signature[:16] == expected


def test_an_earlier_record_is_read_as_the_run_of_today(tmp_path: Path) -> None:
    stored = Path(__file__).with_name("earlier_record")
    record = Record(shutil.copytree(stored, tmp_path / "record"))
    about, config = record.about(), record.config()
    assert about["method"]["tokens"]["target"] == "repro.tokens.svite_plus.InputTokenSelector"
    assert config.method.tokens is not None
    assert config.method.tokens.target == "repro.methods.tokens.svite_plus.InputTokenSelector"
    assert config.signature == about["signature"]
    assert (config.method.tokens.kept_tokens, config.method.tokens.reference_tokens) == (177, 197)
    (row,) = load_table("table1").select([about["row"]])
    assert method_cost(config.model, config.method) == method_cost(config.model, compose(row.overrides).method)
    assert signature({key: about[key] for key in type(config).model_fields}) == about["signature"]


@pytest.mark.parametrize("first", FIRST_NAMES.values())
def test_a_class_is_loaded_by_its_first_name(first: str) -> None:
    assert load_class(first, MethodPart).__name__ == first.rpartition(".")[2]


def test_a_class_that_cannot_be_imported_is_refused_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_method.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    for target, cause in (
        ("broken_method.Mine", "No module named 'no_such_package'"),
        ("repro.methods.Mine", "module 'repro.methods' has no attribute 'Mine'"),
    ):
        with pytest.raises(UserError, match=f"^{target}: cannot be imported \\({cause}\\); write module.Class"):
            load_class(target, MethodPart)
