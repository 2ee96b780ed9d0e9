"""W&B and the report agree on which runs are the published training."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import collect, write_record

from repro.config.compose import compose
from repro.tables.loader import load_table
from repro.tracking.metric_names import names_of

TABLE = load_table("table1")
ROW = next(row for row in TABLE.rows if row.id == "deit_small/dense")
SEED = 1


@pytest.mark.parametrize(
    ("scale", "overrides", "is_published"),
    [
        ("paper", [], True),
        ("paper", ["data.workers=2", "run.device=cpu"], True),  # neither changes a result
        ("paper", ["recipe.epochs=5", "recipe.warmup_epochs=1"], False),
        ("paper", ["data=imagefolder"], False),
        ("local", [], False),
    ],
)
def test_both_compare_the_accuracy_of_the_published_training_only(
    tmp_path: Path, scale: str, overrides: list[str], is_published: bool
) -> None:
    record = write_record(tmp_path, ROW, scale, SEED, overrides=overrides)
    frame = collect(TABLE, [ROW], scale, [SEED], tmp_path, overrides)
    names = names_of("table1", ROW.id, record.config())
    result = record.result()
    assert result is not None

    assert frame["top1_pct_delta"].notna().item() == is_published
    assert frame["top1_best_pct"].notna().item() == is_published
    assert frame["local_top1_best_pct"].notna().item() != is_published
    assert ("delta/top1_pct" in names.against_published(result)) == is_published
    assert ("result/top1_best_pct" in names.summary(result)) == is_published
    assert (names.group == "eval") == is_published


def test_a_run_without_a_row_is_never_the_published_training() -> None:
    config = compose(["scale=paper", "data.root=images", *ROW.overrides])
    assert names_of("by_hand", ROW.id, config).group == "other_data"
