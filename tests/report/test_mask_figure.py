"""The figures of masks: what they are drawn from, and when there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from report_records import collect, frame_and_evidence, write_record

from repro.report.collect import collect_results
from repro.report.figures.drawings import write_figures
from repro.report.figures.files import drawn
from repro.report.figures.layers import draw_layers, layer_map
from repro.report.figures.mask_history import MaskHistory, of_one_backbone, read_histories
from repro.report.figures.masks import draw_churn, draw_ever_active, draw_final_density, draw_units
from repro.report.figures.style import MOST_HEIGHT_IN, PAGE_IN
from repro.runs.record import Record
from repro.tables.rows import Row, Table

VARIANTS = ["deit_small/s2vite-40", "deit_small/s2vite-40-as_released"]


def write_history(record: Record, entries: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"kind": "train", "update": 1, "loss": 1.0})]
    lines += [json.dumps({"kind": "masks", "update": 3 * i, "epoch": float(i), **e}) for i, e in enumerate(entries)]
    record.metrics_file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def root(table: Table, tmp_path: Path) -> Path:
    rows = {row.id: row for row in table.rows}
    unstructured = [
        {"churn": c, "density": 0.5, "ever_active": e, "density/blocks.0.attn.qkv": 0.4, "density/head": 1.0}
        for c, e in ((0.0, 0.5), (0.3, 0.7), (0.1, 0.75))
    ]
    write_history(write_record(tmp_path, rows["deit_small/svite-50"], "local", 0), unstructured)
    for row, found in zip(table.select(VARIANTS), (0.9, 0.6), strict=True):
        units = {"neurons_density": 0.6, "heads_density": 0.67, "churn": 0.2}
        write_history(
            write_record(tmp_path, row, "local", 0),
            [{**units, "neurons_ever_active": v, "heads_ever_active": 0.67} for v in (0.6, found, found)],
        )
    write_record(tmp_path, rows["deit_base/omp-50"], "local", 0)  # from before mask histories were recorded
    return tmp_path


def test_rows_with_other_options_are_drawn_beside_the_published_one(root: Path, table: Table) -> None:
    histories = list(read_histories(frame_and_evidence(table, table.every_row, "local", [0], root)[1]))
    assert [history.row.id for history in histories] == ["deit_small/svite-50", *VARIANTS]
    assert histories[0].progress == (0, 1 / 6, 2 / 6)
    assert histories[0].layer_density == {"blocks.0.attn.qkv": 0.4, "head": 1.0}

    def panel(draw: Any) -> Axes:
        figure = drawn(lambda width_in: draw(table, histories, "local scale", width_in), PAGE_IN)
        assert figure is not None
        (axes,) = figure.axes
        return axes

    units = {str(line.get_label()): np.asarray(line.get_ydata()) for line in panel(draw_units).lines}
    assert set(units) == {
        f"{kind}{options}" for kind in ("neurons", "heads") for options in ("", ", growth as_released")
    }
    assert units["neurons"] == pytest.approx([60, 90, 90, 90])
    assert units["neurons, growth as_released"] == pytest.approx([60, 60, 60, 60])
    ever, active = (np.asarray(line.get_ydata()) for line in panel(draw_ever_active).lines)
    assert ever == pytest.approx([50, 70, 75, 75])
    assert active == pytest.approx([50, 50, 50, 50])
    final = panel(draw_final_density)
    assert [label.get_text() for label in final.get_xticklabels()] == ["0 qkv", "head"]
    assert final.figure is not None
    handles = final.figure.legends[0].legend_handles
    assert {line.get_linestyle() for line in (*final.lines, *handles)} == {"None"}, "points, as layers have no order"  # type: ignore[union-attr]
    churn = panel(draw_churn).figure
    assert churn is not None
    (keys,) = churn.legends
    assert [text.get_text() for text in keys.get_texts()] == ["SViTE, 50 % sparsity", "S2ViTE, 40 % sparsity"]


def test_methods_are_compared_at_the_sparsity_that_most_of_them_share() -> None:
    levels = {"spartan": (80, 90, 95, 95, 99), "imp": (80, 90, 95), "gmp": (50,)}
    rows = [
        Row("t", f"resnet50/{method}-{level}-{place}", "resnet50", method, level, 0)
        for method, own in levels.items()
        for place, level in enumerate(own)
    ]
    histories = [MaskHistory(row, (0.0,), ({},)) for row in rows]
    chosen = [history.row.id for history in of_one_backbone(histories)]
    assert chosen == ["resnet50/spartan-90-1", "resnet50/imp-90-1", "resnet50/gmp-50-0"]
    assert of_one_backbone([]) == []


def test_a_method_without_densities_of_layers_has_no_figure_of_them(table: Table, tmp_path: Path) -> None:
    rows = table.select(["deit_small/svite-50"])
    write_history(write_record(tmp_path, rows[0], "local", 0), [{"churn": 0.1, "density": 0.5}] * 2)
    histories = list(read_histories(frame_and_evidence(table, rows, "local", [0], tmp_path)[1]))
    assert draw_final_density(table, histories, "local scale", PAGE_IN) is None
    assert draw_churn(table, histories, "local scale", PAGE_IN) is not None


@pytest.mark.parametrize(("ever_active", "kinds"), [((0.5, 0.5), ["active"]), ((0.5, 0.75), ["active", "ever active"])])
def test_a_legend_lists_only_lines_that_are_drawn(
    table: Table, tmp_path: Path, ever_active: tuple[float, ...], kinds: list[str]
) -> None:
    rows = table.select(["deit_small/svite-50"])
    entries = [{"churn": 0.1, "density": 0.5, "ever_active": share} for share in ever_active]
    write_history(write_record(tmp_path, rows[0], "local", 0), entries)
    histories = list(read_histories(frame_and_evidence(table, rows, "local", [0], tmp_path)[1]))
    figure = draw_ever_active(table, histories, "local scale", PAGE_IN)
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SViTE, 50 % sparsity", *kinds]


def test_a_layer_is_as_dense_as_the_last_mask_left_it(root: Path, table: Table) -> None:
    (record,) = Record(root / "table1" / "deit_small" / "svite-50" / "local").path.glob("seed0-*")
    densities = (1.0, 0.5, 0.25)
    write_history(Record(record), [{"churn": 0.0, "density": d, "density/blocks.0.attn.qkv": d} for d in densities])
    histories = list(read_histories(frame_and_evidence(table, table.rows, "local", [0], root)[1]))
    seen = layer_map(histories[0])  # 6 epochs, with masks at the start, after one epoch and after two
    assert seen.shape == (1, 128)
    assert (seen[0, 5], seen[0, 30], seen[0, 100]) == (100, 50, 25)
    figure = draw_layers(table, histories, "local scale", PAGE_IN)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0 qkv"]
    assert figure.axes[-1].get_xlabel() == "active weights or units (%)"
    assert draw_layers(table, [], "local scale", PAGE_IN) is None


@pytest.mark.parametrize(("blocks", "step"), [(3, 1), (12, 1), (24, 2)])
def test_every_layer_is_named_where_there_is_room(table: Table, tmp_path: Path, blocks: int, step: int) -> None:
    rows = table.select(["deit_small/svite-50"])
    layers = [f"blocks.{block}.{matrix}" for block in range(blocks) for matrix in ("attn.qkv", "attn.proj", "mlp.fc1")]
    entry = {"churn": 0.1, "density": 0.5, **{f"density/{layer}": 0.5 for layer in layers}}
    write_history(write_record(tmp_path, rows[0], "local", 0), [entry, entry])
    histories = list(read_histories(frame_and_evidence(table, rows, "local", [0], tmp_path)[1]))
    figure = draw_layers(table, histories, "local scale", PAGE_IN)
    assert figure is not None
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (names[0], len(names)) == ("0 qkv", len(layers) // step) if step == 1 else len(names) < len(layers)
    assert figure.get_figheight() <= MOST_HEIGHT_IN


def test_they_are_written_with_a_history_only(root: Path, table: Table) -> None:
    names = {f"table1_{name}" for name in ("churn", "ever_active", "units", "final_density", "layers")}
    written, _ = write_figures(collect_results(table, table.rows, "local", [0], root), root / "a")
    assert names <= {one.name for one in written}
    none = collect_results(table, table.rows, "paper", [0], root, ["data.root=x"])
    assert not names & {one.name for one in write_figures(none, root / "b")[0]}


def test_figures_of_an_earlier_report_of_other_rows_are_removed(root: Path, table: Table) -> None:
    rows = table.select(["deit_small/svite-50", "deit_base/omp-50"])
    entries = [{"kind": "eval", "update": n, "epoch": n, "top1_pct": 50.0 + n} for n in (1, 2)]
    curve = write_record(root, rows[-1], "local", 0).metrics_file
    curve.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")

    def pictures(rows: Sequence[Row]) -> set[str]:
        _, paths = write_figures(collect_results(table, rows, "local", [0], root), root / "reports")
        found = {path.stem for path in (root / "reports").glob("*.png")}
        assert found == {path.stem for path in paths if path.suffix == ".png"}
        return found

    assert {"table1_churn", "table1_curves_deit_base"} <= pictures(rows)
    assert not {"table1_churn", "table1_curves_deit_base"} & pictures(table.select(["deit_tiny/dense"]))


def test_a_report_with_an_override_counts_gains_from_the_ordinary_dense_row(root: Path, table: Table) -> None:
    rows = table.select(["deit_small/s2vite-40"])
    overrides = ["method.weights.growth=as_released"]
    write_record(root, rows[0], "local", 0, overrides=overrides)
    frame = collect(table, rows, "local", [0], root, overrides)
    assert list(frame["state"]) == ["done"]
