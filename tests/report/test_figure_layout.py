"""All figures in the widths in which they are used: readable, without overlaps, clipped content or empty panels."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from report_records import write_record, write_saving

from repro.files import write_json
from repro.report.cells import Results
from repro.report.collect import collect_results
from repro.report.figures.anatomy import draw_heads
from repro.report.figures.drawings import drawings
from repro.report.figures.files import DARK_PAPER, dark_colour, drawn, light_and_dark
from repro.report.figures.layers import draw_layers
from repro.report.figures.mask_history import read_histories
from repro.report.figures.style import COLOURS, COLUMN_IN, INK, PAGE_IN, PAPER, QUIET, SMALLEST_PT
from repro.report.points import gain_point
from repro.runs.record import Record
from repro.runs.schemas import ANATOMY_SCHEMA
from repro.tables.loader import load_table
from repro.tables.rows import Row

SLACK_PX = 1.0
EPOCHS = range(1, 9)
# The figures that records of these tables can have, for weights and structure, and for tokens.
EXPECTED = {
    "table1": {"local", "sparsity", "cost", "curves_deit_tiny", "curves_deit_small", "curves_deit_base", "churn"}
    | {"ever_active", "units", "final_density", "layers", "heads", "tokens", "interpretation"},
    "table3": {"local", "cost", "curves_deit_small", "curves_deit_base", "curves_deit_base_384"}
    | {"curves_timesformer_base", "tokens", "interpretation"},
}


def fill(record: Record, row: Row, place: int) -> None:
    """Write everything that figures show of a finished run: evaluations, mask updates, heads, patches, heat maps."""
    ends = 95.0 - (7 * place) % 23
    lines: list[dict[str, Any]] = [
        {"kind": "eval", "update": epoch, "epoch": epoch, "top1_pct": ends * (1 - 0.5**epoch)} for epoch in EPOCHS
    ]
    layers = ["patch_embed.proj", *(f"blocks.{b}.{m}" for b in range(12) for m in ("attn.qkv", "attn.proj", "mlp.fc1"))]
    if row.arch_sparsity_pct:
        for update in range(6):
            density = {f"density/{layer}": 1 - update * 0.1 for layer in layers}
            entry = {"churn": 0.3 / (1 + update), "density": 0.5, "ever_active": 0.5 + 0.05 * update, **density}
            entry |= {"neurons_ever_active": 0.6 + 0.05 * update, "heads_ever_active": 0.7}
            lines.append({"kind": "masks", "update": update, "epoch": float(update), **entry})
    record.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    anatomy: dict[str, Any] = {"schema": ANATOMY_SCHEMA, "heads": [[True, True, not row.arch_sparsity_pct]] * 4}
    if row.data_sparsity_pct or "ia_red2" in row.id:
        kept = [[[True] * 15 + [False]] * 4] * (3 if "ia_red2" in row.id else 1)
        anatomy |= {"images": np.zeros((4, 8, 8)).tolist(), "kept": kept, "patch_size": 2}
        stages = [{"kept_pct": 90.0, "object_kept_pct": 100.0, "background_kept_pct": 50.0}] * len(kept)
        values = {"pixel_accuracy_pct": 80.0, "mean_accuracy_pct": 75.0, "mean_iou_pct": 61.25}
        names = ("token_scores", "class_attention", "rollout")
        measured = {"schema": 1, "data": "shapes", "images": 64, "images_with_mask": 64, "stages": stages}
        write_json(record.path / "interpretation.json", {**measured, "maps": dict.fromkeys(names, values)})
        maps = {f"map_{name}": np.zeros((4, 8, 8), np.float16) for name in names}
        stay = np.ones((4, len(kept), 16), bool)
        np.savez(record.path / "interpretation.npz", images=np.zeros((4, 8, 8, 3), np.uint8), kept=stay, **maps)
    write_json(record.path / "anatomy.json", anatomy)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """The results of tables whose rows have all been trained, timed and interpreted."""
    found = {}
    for name in EXPECTED:
        root, table = tmp_path_factory.mktemp(name), load_table(name)
        rows = table.select([], "local")
        for place, row in enumerate(row for row in rows if not row.reads_runs_of):
            for seed in (0, 1, 2) if place % 8 == 1 else (0,):
                top1 = 95.0 - (7 * place) % 23 + seed / 4
                record = write_record(root, row, "local", seed, overrides=row.overrides_at("local"), top1_best_pct=top1)
                fill(record, row, place)
            write_saving(root, row, 20.0 + place)
        found[name] = collect_results(table, rows, "local", [0, 1, 2], root)
    return found


@pytest.fixture(scope="module")
def figures(full: dict[str, Results]) -> Callable[[str, float], dict[str, Figure]]:
    """The figures of a table in a given width, drawn once."""

    @functools.cache
    def draw(table: str, width_in: float) -> dict[str, Figure]:
        shown = ((one.name, drawn(one.draw, width_in)) for one in drawings(full[table]))
        return {name: figure for name, figure in shown if figure is not None}

    return draw


Figures = Callable[[str, float], dict[str, Figure]]
CASES = list(itertools.product(EXPECTED, (PAGE_IN, COLUMN_IN)))


def texts(figure: Figure) -> list[Text]:
    """Return the visible texts, without those of hidden axes and of ticks beyond the axis limits."""
    found = list(figure.findobj(Text))
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            visible = axis._update_ticks() if axes.axison else []  # type: ignore[attr-defined]  # no public way
            hidden = {
                text
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                if tick not in visible
                for text in (tick.label1, tick.label2)
            }
            found = [text for text in found if text not in hidden and (axes.axison or text is not axis.label)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize(("table", "width_in"), CASES)
def test_every_figure_is_as_wide_as_it_is_used_and_readable(figures: Figures, table: str, width_in: float) -> None:
    own = figures(table, width_in)
    known = load_table(table)
    assert {name.removeprefix(f"{table}_") for name in own} == EXPECTED[table] | {known.figure}
    for name, figure in own.items():
        width, height = figure.get_size_inches()
        assert width == width_in, name
        assert height <= 9, f"{name} is taller than a page"
        small = {text.get_text(): text.get_fontsize() for text in texts(figure) if text.get_fontsize() < SMALLEST_PT}
        assert not small, f"{name}: {small}"


@pytest.mark.parametrize(("table", "width_in"), CASES)
def test_nothing_overlaps_or_leaves_the_canvas(figures: Figures, table: str, width_in: float) -> None:
    for name, figure in figures(table, width_in).items():
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
        canvas = figure.bbox
        for words, box in boxes:
            inside = (box.x0 >= -SLACK_PX, box.y0 >= -SLACK_PX)
            inside += (box.x1 <= canvas.x1 + SLACK_PX, box.y1 <= canvas.y1 + SLACK_PX)
            assert all(inside), f"{name}, {width_in} in: {words!r} leaves the canvas"
        for (one, first), (two, second) in itertools.combinations(boxes, 2):
            assert not overlap(first, second), f"{name}, {width_in} in: {one!r} and {two!r} overlap"
        panels = [axes.get_window_extent() for axes in figure.findobj(Axes)]
        assert not any(overlap(one, two) for one, two in itertools.combinations(panels, 2)), name


def overlap(one: Bbox, two: Bbox) -> bool:
    across = min(one.x1, two.x1) - max(one.x0, two.x0)
    down = min(one.y1, two.y1) - max(one.y0, two.y0)
    return across > SLACK_PX and down > SLACK_PX


@pytest.mark.parametrize(("table", "width_in"), CASES)
def test_no_panel_is_empty_and_no_place_in_a_line_stays_free(figures: Figures, table: str, width_in: float) -> None:
    for name, figure in figures(table, width_in).items():
        shown = list(figure.findobj(Axes))
        assert all(axes.get_visible() and axes.has_data() for axes in shown), name
        lines: dict[int, list[Bbox]] = {}
        for axes in shown:
            spec = axes.get_subplotspec()
            if spec is not None and axes.get_label() != "<colorbar>":
                lines.setdefault(spec.rowspan.start, []).append(axes.get_window_extent())
        if figure.subfigs or "interpretation" in name:  # images have a fixed aspect ratio
            continue
        ends = {round(max(box.x1 for box in line)) for line in lines.values()}
        assert max(ends) - min(ends) <= 25, f"{name}: lines of panels end at {sorted(ends)}"


def test_maps_of_layers_are_equally_wide(full: dict[str, Results]) -> None:
    """Of an odd number of panels, the last is as wide as the others, and the colour bar takes the place beside it."""
    histories = [one for one in read_histories(full["table1"].evidence) if one.row.method != "tp"]
    figure = drawn(lambda width_in: draw_layers(full["table1"].table, histories, "local scale", width_in), PAGE_IN)
    assert figure is not None
    *maps, bar = (axes.get_window_extent() for axes in figure.findobj(Axes))
    assert len(maps) == 7
    assert {round(box.width) for box in maps} == {round(maps[0].width)}
    assert bar.x0 > maps[-1].x1
    assert maps[-1].y0 < bar.y0 < bar.y1 < maps[-1].y1


@pytest.mark.parametrize("width_in", [PAGE_IN, COLUMN_IN])
def test_fifteen_maps_of_heads_fit(full: dict[str, Results], width_in: float) -> None:
    sparse = [one for one in full["table1"].evidence if one.row.arch_sparsity_pct][:15]
    figure = drawn(functools.partial(draw_heads, full["table1"].table, sparse), width_in)
    assert figure is not None
    assert len(figure.findobj(Axes)) == 15
    assert figure.get_suptitle() == "Heads left (dark), local scale, one seed"
    for axes in figure.findobj(Axes):  # counted from 0, as in the other figures of layers
        ends = [[label.get_text() for label in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())]
        assert ends == [["0", "2"], ["0", "3"]]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("head", "block")


@pytest.mark.parametrize("width_in", [PAGE_IN, COLUMN_IN])
def test_no_saving_hides_another_or_moves_far(figures: Figures, full: dict[str, Results], width_in: float) -> None:
    shown = {
        point.row.id: point
        for row in full["table1"].rows
        if (point := gain_point(row, row.context.cost.params_saving_pct))
    }
    for axes in figures("table1", width_in)["table1_cost"].axes:
        points = [axes.transData.transform(one.lines[0].get_xydata()) for one in axes.containers]  # type: ignore[attr-defined]
        pairs = itertools.combinations(np.concatenate(points), 2)
        assert min(np.hypot(*(one - two)) for one, two in pairs) > 1.4, axes.get_title()
        if axes.get_title() == "Parameters":
            drawn_at = np.sort([one.lines[0].get_xdata()[0] for one in axes.containers])  # type: ignore[attr-defined]
            counted = np.sort([point.x for point in shown.values()])
            assert np.abs(drawn_at - counted).max() < 2.5, "in points of saving"
    caption = next(one.caption for one in drawings(full["table1"]) if one.name == "table1_cost")
    assert caption.endswith("Points with the same saving are moved sideways a little; the table has the values.")


def test_a_figure_names_the_data_of_its_panels_only(figures: Figures) -> None:
    """No published MACs of TimeSformer are known, and of DeiT-Base 384 only the dense model's."""
    own = figures("table3", PAGE_IN)
    assert [axes.get_title() for axes in own["figure3"].axes] == ["DeiT-Small", "DeiT-Base"]
    assert own["figure3"].get_supylabel() == "ImageNet top-1, best epoch (%)"
    labels = {name: own[f"table3_curves_{name}"].get_supylabel() for name in ("deit_base", "timesformer_base")}
    assert labels["deit_base"] == "shapes top-1, each epoch (%)\nlocal scale, not ImageNet"
    assert labels["timesformer_base"].endswith("not Kinetics-400")


def test_no_line_joins_accuracies_of_different_rows(figures: Figures) -> None:
    own = figures("table1", PAGE_IN)
    for name in ("figure1", "table1_local", "table1_sparsity", "table1_cost"):
        for axes in own[name].axes:
            for line in axes.lines:
                level = len({float(y) for y in np.asarray(line.get_ydata())}) == 1
                assert line.get_linestyle() == "None" or level, f"{name}: {line.get_xydata()}"


def test_every_local_accuracy_has_an_interval(figures: Figures) -> None:
    own = figures("table1", PAGE_IN)
    for name in ("table1_local", "table1_sparsity", "table1_cost"):
        bars = points = 0
        for axes in own[name].axes:
            for container in axes.containers:
                points += len(container.lines[0].get_xdata())  # type: ignore[attr-defined]
                heights = [np.ptp(segment[:, 1]) for segment in container.lines[2][-1].get_segments()]  # type: ignore[attr-defined]
                bars += sum(height > 0.5 for height in heights)
        assert bars == points > 40, name


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [*COLOURS, INK, QUIET])
def test_what_is_drawn_is_to_be_seen_on_a_dark_page(colour: str) -> None:
    assert contrast(dark_colour(colour.lower()), DARK_PAPER) > 4.5


def test_paper_is_dark_on_a_dark_page() -> None:
    assert dark_colour(PAPER) == DARK_PAPER
    assert DARK_PAPER in (Path(__file__).parents[2] / "repro/report/templates/style.css").read_text(encoding="utf-8")


def test_a_picture_for_a_page_has_both_sets_of_colours() -> None:
    svg = (
        '<svg>\n <defs>\n </defs>\n <!-- x -->\n <path d="M 1.23456 2" style="fill: #0072b2; stroke: #ffffff"/>\n</svg>'
    )
    assert light_and_dark(svg) == (
        "<svg>\n<style>svg{--c0:#0072b2;--c1:#ffffff;}@media(prefers-color-scheme:dark){svg{--c0:"
        f"{dark_colour('#0072b2')};--c1:{DARK_PAPER};}}}}</style><defs>\n</defs>\n"
        '<path d="M 1.234 2" style="fill: var(--c0); stroke: var(--c1)"/>\n</svg>'
    )


def test_captions_are_sentences(full: dict[str, Results]) -> None:
    captions: Iterator[str] = (one.caption for results in full.values() for one in drawings(results))
    assert all(caption.endswith(".") and len(caption) > 25 for caption in captions)
