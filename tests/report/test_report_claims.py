"""Claims: the language is small and safe, the data are whole, and the verdicts are those worked by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from report_records import write_record, write_saving
from rich.console import Console

from repro.errors import UserError
from repro.report.claims import CLAIMS_FILE, Claim, judge_claims, load_claims
from repro.report.collect import collect
from repro.report.expressions import Call, ExpressionError, parse
from repro.report.tables import html_text, latex_text, markdown_text, print_claims
from repro.report.view import view
from repro.rows import Table, load_sources

CELL = {"cell": 1}
NO_NAMES: frozenset[str] = frozenset()


def value(text: str, **cells: float | None) -> float | bool | None:
    return parse(text, CELL, frozenset({"tolerance"})).value({"cell": cells.__getitem__}, {"tolerance": 0.5})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(cell('a') - 3) * 2 / 4 + 1", 2.0),
        ("cell('a') > 0 and not cell('b') >= 3", True),
        ("0 < cell('a') <= cell('b') + tolerance", True),
        ("max(cell('a'), cell('b'), -1) < min(5, 4)", True),
        ("cell('gone') > 1 or cell('a') > 0", True),
        ("cell('gone') > 1 and cell('a') < 0", False),
        ("cell('gone') > 1 or cell('a') < 0", None),
        ("not cell('gone')", None),
        ("1 < 0 < cell('gone')", False),
        ("max(cell('a'), cell('gone')) > 0", None),
    ],
)
def test_expressions_by_hand(text: str, expected: float | bool | None) -> None:
    assert value(text, a=1.0, b=2.0, gone=None) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "cell.__class__",
        "[cell('a') for x in ()]",
        "cell('a')[0]",
        "lambda: 1",
        "cell('a') if 1 else 2",
        "cell(*('a',))",
        "cell(name='a')",
        "cell('a', 'b')",
        "cell(1)",
        "open('x')",
        "2 ** 9 ** 9",
        "'words'",
        "True",
        "x",
        "cell('a') == 1",
        "(y := 1)",
        "f'{cell}'",
        "max()",
        "1 +",
        "",
    ],
)
def test_anything_else_is_refused_before_it_is_evaluated(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text, CELL, NO_NAMES)


@given(st.text(max_size=40))
def test_no_text_escapes_the_language(text: str) -> None:
    try:
        parsed = parse(text, CELL, NO_NAMES)
    except ExpressionError:
        return
    assert all(call.function == "cell" for call in parsed.calls)


def test_every_claim_has_a_source_a_reason_and_no_number_of_its_own() -> None:
    claims = load_claims()
    assert len(claims) == 14
    for claim in claims:
        assert claim.source in load_sources()
        assert claim.reason
        # 0, 1 and 100 turn a ratio into percent; any other number would be a published one without a source.
        assert set(claim.expression.constants) <= {0.0, 1.0, 100.0}
        assert any(call.function == "measured" for call in claim.expression.calls)


def judged(frame: pd.DataFrame, table: Table) -> dict[str, tuple[str, str]]:
    return {found.claim.id: (found.verdict, found.by_published) for found in judge_claims(frame, table)}


def test_costs_are_decided_today_and_the_rest_says_what_it_waits_for(
    frames: dict[str, pd.DataFrame], table: Table
) -> None:
    found = judged(frames["local"], table)
    assert found["svite_plus_small_flops"] == ("holds", "")
    assert found["s2vite_base_flops"] == ("holds", "")
    assert found["svite_plus_small_gain"] == ("not run at this scale", "")
    assert found["s2vite_base_better_than_dense"] == ("not run at this scale", "holds")
    assert found["sparse_training_can_improve"] == ("not run at this scale", "holds")
    assert found["s2vite_base_time"] == ("not measured", "")
    assert not [name for name in found if name.startswith("spartan")], "they are in their own table's report"
    assert found["ia_red2_speedup"] == ("not run", "holds")
    # 81.8 - 80.9 = 0.9 on DeiT-Base, by the one source that there is: more than 0.7 and half a digit on each side.
    assert found["ia_red2_accuracy_drop"] == ("not run", "does not hold")
    assert {found[name][0] for name in found if name.startswith(("ia_red2", "linformer"))} == {"not run"}


def test_the_published_training_decides(frames: dict[str, pd.DataFrame], table: Table) -> None:
    by_id = {found.claim.id: found for found in judge_claims(frames["paper"], table)}
    # 80.18 - 79.9 = 0.28 by seed in the synthetic records.
    assert by_id["svite_plus_small_gain"].verdict == "holds"
    assert by_id["sparse_training_can_improve"].verdict == "holds"
    waiting = by_id["s2vite_base_better_than_dense"]
    assert (waiting.verdict, waiting.reason) == ("not run", "deit_base/s2vite-40: missing; deit_base/dense: missing")


def test_a_claim_can_fail(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_base/dense", "deit_base/s2vite-40"])
    for row, accuracy in zip(rows, (82.0, 81.0), strict=True):
        write_record(tmp_path, row, "paper", 0, top1_best_pct=accuracy)
    write_saving(tmp_path, rows[1], 10.0)
    frame = collect(table, rows, "paper", [0], tmp_path)
    found = judged(frame, table)
    assert found["s2vite_base_better_than_dense"] == ("does not hold", "holds")
    assert found["s2vite_base_time"] == ("does not hold", "")
    assert found["svite_plus_small_flops"] == ("not run", "")  # that row is not in this report


def test_claims_are_in_every_report(frames: dict[str, pd.DataFrame], table: Table) -> None:
    seen = view(frames["local"], table)
    out = io.StringIO()
    print_claims(frames["local"], table, Console(file=out, width=150, color_system=None))
    for text in (markdown_text(seen), latex_text(seen), html_text(seen), out.getvalue()):
        for words in ("S2ViTE-Base at 40 %", "IA-RED2 costs less", "not run at this scale", "holds"):
            assert words.replace("%", r"\%").replace("-", "{-}") in text or words in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "abstrac"}, "claim a: source 'abstrac' unknown; nearest: abstract"),
        ({"expression": "open('x')"}, "claim a: cannot call 'open' like this"),
        ({"expression": "measured('x', 'y') > tolerence"}, "claim a: unknown name 'tolerence'; nearest: tolerance"),
        ({"reason": None}, "claim a: no reason"),
        ({"published": [{"row": "r", "metric": "m", "value": 1, "kind": "seen", "source": "abstract"}]}, "kind 'seen'"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    right = {
        "id": "a",
        "table": "table1",
        "statement": "s",
        "source": "abstract",
        "expression": "measured('x', 'y') > 0",
        "tolerance": 0,
        "reason": "r",
    }
    entry = {key: item for key, item in {**right, **change}.items() if item is not None}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [entry]}), encoding="utf-8")
    with pytest.raises(UserError, match=r"claims\.yaml") as caught:
        load_claims(path)
    assert message in str(caught.value)


def test_a_claim_about_no_row_is_refused(frames: dict[str, pd.DataFrame], table: Table) -> None:
    for text, message in (
        ("measured('deit_smal/dense', 'params_m') > 0", "has no 'deit_smal/dense'; nearest"),
        ("measured('deit_small/dense', 'param') > 0", "has no 'param'; nearest: params_m"),
        ("published('deit_small/dense', 'params_m') > 0", "no published params_m of deit_small/dense"),
    ):
        claim = Claim(
            "x", "table1", "s", "abstract", parse(text, {"measured": 2, "published": 2}, NO_NAMES), 0, "r", {}
        )
        with pytest.raises(UserError) as caught:
            judge_claims(frames["local"], table, [claim])
        assert message in str(caught.value)
    assert Call("measured", ("a", "b")) == Call("measured", ("a", "b"))
    assert CLAIMS_FILE.is_file()
